// The functions that the lambda sink is tested with. What they get is written to the
// file that NOTES names, one JSON document a line.
const fs = require('node:fs')

const write = (event, context) =>
  fs.appendFileSync(process.env.NOTES, JSON.stringify({ event, custom: context.clientContext?.custom ?? null }) + '\n')

// note takes everything.
exports.note = async (event, context) => {
  write(event, context)
  return { ok: true }
}

// reply answers with an event.
exports.reply = async event => ({
  specversion: '1.0', id: 'reply-' + event.id, source: '/reply', type: 'replied', data: { to: event.id },
})

// fail throws.
exports.fail = async () => {
  throw new TypeError('the picture is torn')
}

// batch fails the events whose number is odd.
exports.batch = async (event, context) => {
  write(event, context)
  const records = event.Records ?? event
  return {
    batchItemFailures: records.filter(r => (r.data ?? r.detail).n % 2 === 1).map(r => ({ itemIdentifier: r.id })),
  }
}

// slow answers after three seconds.
exports.slow = () => new Promise(resolve => setTimeout(() => resolve({}), 3000))
