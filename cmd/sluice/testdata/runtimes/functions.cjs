// Functions of the signature cloudevent. Each prints what it is given as a line of JSON.

function show (event) {
  console.log(JSON.stringify(Buffer.isBuffer(event) ? { buffer: event.length } : event))
}

// simple is what people write: it knows single events only.
exports.simple = async (event) => {
  show(event)
  if (event.type === 'broken') throw new Error('the function is broken')
}

// batches knows that a batch comes as bytes, and names the events that failed.
exports.batches = async (body) => {
  show(body)
  const failed = JSON.parse(body).filter((event) => event.type === 'broken')
  return { batchItemFailures: failed.map((event) => ({ itemIdentifier: event.id })) }
}
