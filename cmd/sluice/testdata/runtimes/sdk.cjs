// The CloudEvents SDK for JavaScript as receiver and as sender.
//
// node sdk.cjs receive PORT prints each request as a line of JSON: an array of the
// events that HTTP.toEvent found. node sdk.cjs send URL MODE reads events from standard
// input, a JSON array, sends them, and prints the status of each answer.
const http = require('node:http')
const { CloudEvent, HTTP } = require('cloudevents')

const [what, where, mode] = process.argv.slice(2)

async function text (stream) {
  const parts = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts).toString()
}

function receive () {
  http.createServer(async (req, res) => {
    try {
      const found = HTTP.toEvent({ headers: req.headers, body: await text(req) })
      console.log(JSON.stringify([found].flat()))
      res.writeHead(204).end()
    } catch (err) {
      console.log(JSON.stringify({ error: err.message }))
      res.writeHead(400).end(err.message)
    }
  }).listen(Number(where), '127.0.0.1')
}

function post ({ headers, body }) {
  return new Promise((resolve, reject) => {
    const req = http.request(where, { method: 'POST', headers }, async (res) => {
      console.log(JSON.stringify({ status: res.statusCode, body: await text(res) }))
      resolve()
    })
    req.on('error', reject)
    req.end(Buffer.from(body)) // of a string, node may send the headers as UTF-8 too
  })
}

async function send () {
  const events = JSON.parse(await text(process.stdin)).map((event) => new CloudEvent(event))
  if (mode === 'batch') {
    return post({ headers: { 'content-type': 'application/cloudevents-batch+json' }, body: JSON.stringify(events) })
  }
  for (const event of events) await post(HTTP[mode](event))
}

if (what === 'receive') receive()
else send().catch((err) => { console.error(err.message); process.exit(1) })
