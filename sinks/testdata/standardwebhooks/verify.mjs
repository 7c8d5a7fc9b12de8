// Verifies requests with the official library: a JSON list on stdin, with the body
// in base64.
import { readFileSync } from "node:fs";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

let verified = 0, refused = 0;
for (const { form, secret, headers, body } of JSON.parse(readFileSync(0, "utf8"))) {
  const webhook = new Webhook(secret);
  const check = (bytes) => {
    try {
      webhook.verify(bytes, headers);
    } catch (error) {
      // The library reads the body as JSON once the signature is right.
      if (error instanceof SyntaxError) return true;
      if (error instanceof WebhookVerificationError) return false;
      throw error;
    }
    return true;
  };
  const bytes = Buffer.from(body ?? "", "base64");
  if (check(bytes)) verified++;
  else console.log(`${form} is not verified`);
  if (!check(Buffer.concat([bytes, Buffer.from(" ")]))) refused++;
}
console.log(`${verified} verified, ${refused} changed ones refused`);
