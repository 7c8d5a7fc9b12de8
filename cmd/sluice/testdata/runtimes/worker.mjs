// A worker with two steps of a pipeline: each answers with the event for the next.

function reply (type, data) {
  return new Response(JSON.stringify(data), { headers: { 'content-type': 'application/json', 'ce-type': type } })
}

export default {
  async fetch (request) {
    const event = await request.json()
    switch (new URL(request.url).pathname) {
      case '/resize':
        if (event.width > 10000) throw new Error('that is too large')
        return reply('picture.resized', {
          name: decodeURIComponent(request.headers.get('ce-subject')), width: event.width / 10, from: request.headers.get('ce-id')
        })
      case '/store':
        return new Response(JSON.stringify({
          specversion: '1.0', id: `stored-${event.name}`, source: '/workerd', type: 'picture.stored', data: event
        }), { headers: { 'content-type': 'application/cloudevents+json' } })
    }
    return new Response('no such step', { status: 404 })
  }
}
