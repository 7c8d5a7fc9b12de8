// Signs and verifies requests with the libraries that the services publish for Node,
// and, where there is none, with the crypto of Node. It answers each line of JSON on
// stdin with one on stdout, as main.go does. It runs in a directory in which the
// dependencies of package.json are installed.
import { createHmac, createPrivateKey, createPublicKey, sign, timingSafeEqual, verify } from "node:crypto";
import { createInterface } from "node:readline";
import * as github from "@octokit/webhooks-methods";
import { shopifyApi } from "@shopify/shopify-api";
import { createSHA256HMAC, HashFormat } from "@shopify/shopify-api/runtime";
import "@shopify/shopify-api/adapters/node";
import { Webhook } from "standardwebhooks";
import twilio from "twilio";

// ed25519 is the key of a seed of 32 bytes in base64.
const ed25519 = (seed) =>
  createPrivateKey({
    key: Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), Buffer.from(seed, "base64")]),
    format: "der",
    type: "pkcs8",
  });

const standard = (t) => `${t.id}.${t.time}.${t.body}`;
const hmac = (t) => createHmac("sha512", t.secret).update(`${t.time}|${t.body}`);
const form = (body) => Object.fromEntries(new URLSearchParams(body));

const schemes = {
  github: {
    sign: async (t) => ({ headers: { "X-Hub-Signature-256": await github.sign(t.secret, t.body) } }),
    verify: (t) => github.verify(t.secret, t.body, t.headers["X-Hub-Signature-256"]),
  },
  gitlab: {
    sign: (t) => ({
      headers: {
        "webhook-id": t.id,
        "webhook-timestamp": String(t.time),
        "webhook-signature": new Webhook(t.secret).sign(t.id, new Date(t.time * 1000), t.body),
      },
    }),
    verify: (t) => Boolean(new Webhook(t.secret).verify(t.body, t.headers)),
  },
  shopify: {
    sign: async (t) => ({
      headers: {
        "X-Shopify-Topic": "orders/create",
        "X-Shopify-Shop-Domain": "a.myshopify.com",
        "X-Shopify-API-Version": "2026-10",
        "X-Shopify-Webhook-Id": t.id,
        "X-Shopify-Hmac-Sha256": await createSHA256HMAC(t.secret, t.body, HashFormat.Base64),
      },
    }),
    verify: async (t) => {
      const logger = { log: () => {} }; // it would write to stdout
      const api = shopifyApi({ apiKey: "k", apiSecretKey: t.secret, apiVersion: "2026-10", hostName: "localhost", isEmbeddedApp: false, logger });
      const rawRequest = { method: "POST", url: "/", headers: t.headers };
      const { valid } = await api.webhooks.validate({ rawBody: t.body, rawRequest, rawResponse: {} });
      return valid;
    },
  },
  twilio: {
    sign: (t) => ({ headers: { "X-Twilio-Signature": twilio.getExpectedTwilioSignature(t.secret, t.url, form(t.body)) } }),
    verify: (t) => twilio.validateRequest(t.secret, t.headers["X-Twilio-Signature"], t.url, form(t.body)),
  },
  "twilio JSON": {
    sign: (t) => {
      const url = `${t.url}?bodySHA256=${twilio.getExpectedBodyHash(t.body)}`;
      return { url, headers: { "X-Twilio-Signature": twilio.getExpectedTwilioSignature(t.secret, url, {}) } };
    },
    verify: (t) => twilio.validateRequestWithBody(t.secret, t.headers["X-Twilio-Signature"], t.url, t.body),
  },
  v1a: {
    sign: (t) => ({
      headers: {
        "webhook-id": t.id,
        "webhook-timestamp": String(t.time),
        "webhook-signature": "v1a," + sign(null, Buffer.from(standard(t)), ed25519(t.secret)).toString("base64"),
      },
    }),
    verify: (t) => {
      const signature = Buffer.from(t.headers["webhook-signature"].slice("v1a,".length), "base64");
      return verify(null, Buffer.from(standard(t)), createPublicKey(ed25519(t.secret)), signature);
    },
  },
  hmac: {
    sign: (t) => ({ headers: { "X-Time": String(t.time), "X-Signature": hmac(t).digest("base64") } }),
    verify: (t) => timingSafeEqual(hmac(t).digest(), Buffer.from(t.headers["X-Signature"], "base64")),
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line);
  let result = {};
  try {
    if (!task.headers) {
      result = await schemes[task.scheme].sign(task);
    } else if (!(await schemes[task.scheme].verify(task))) {
      result = { error: "the signature is not right" };
    }
  } catch (err) {
    result = { error: String(err) };
  }
  console.log(JSON.stringify(result));
}
