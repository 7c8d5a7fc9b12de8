package api

import "net/http"

// route is one row of the table: who asks with method for path needs scope, and
// gets what do answers.
type route struct {
	method string
	path   string
	scope  Scope
	do     func(http.ResponseWriter, *http.Request) error
}

// routes is every URL of the bus but the paths of the sources, which the config
// gives. Each is documented in openapi.json.
func (a *api) routes() []route {
	const v1 = "/api/v1"
	return []route{
		{"POST", "/", Publish, a.ingest},
		{"POST", "/events", Publish, a.ingest},

		{"GET", "/livez", Anybody, a.live},
		{"GET", "/readyz", Anybody, a.ready},
		{"GET", "/metrics", Metrics, a.showMetrics},

		{"GET", v1 + "/status", Admin, bare(a.status)},
		{"GET", v1 + "/doctor", Admin, a.doctor},
		{"GET", v1 + "/sinks", Admin, bare(a.listSinks)},
		{"GET", v1 + "/sinks/{name}", Admin, bare(a.showSink)},
		{"POST", v1 + "/sinks/{name}/pause", Admin, a.pauseSink},
		{"POST", v1 + "/sinks/{name}/resume", Admin, a.resumeSink},

		{"GET", "/subscriptions", Subscribe, bare(a.listSubscriptions)},
		{"POST", "/subscriptions", Subscribe, a.subscribe},
		{"OPTIONS", "/subscriptions", Subscribe, bare(a.subscriptionFeatures)},
		{"GET", "/subscriptions/{id}", Subscribe, bare(a.showSubscription)},
		{"PUT", "/subscriptions/{id}", Subscribe, a.replaceSubscription},
		{"DELETE", "/subscriptions/{id}", Subscribe, bare(a.unsubscribe)},
		{"OPTIONS", "/subscriptions/{id}", Subscribe, bare(a.subscriptionFeatures)},
		{"POST", "/subscriptions/{id}/renew", Subscribe, a.renewSubscription},

		{"GET", v1 + "/queues", Consume, bare(a.listQueues)},
		{"POST", v1 + "/queues/{name}/receive", Consume, a.receive},
		{"POST", v1 + "/queues/{name}/ack", Consume, a.ack},
		{"POST", v1 + "/queues/{name}/nack", Consume, a.nack},
		{"POST", v1 + "/queues/{name}/extend", Consume, a.extend},
		{"GET", v1 + "/queues/{name}/peek", Consume, a.peek},
		{"POST", v1 + "/queues/{name}/purge", Admin, a.purgeQueue},

		{"POST", v1 + "/leases/{id}/extend", Anybody, a.extendLease}, // these three check the token of the lease
		{"POST", v1 + "/leases/{id}/complete", Anybody, bare(a.completeLease)},
		{"POST", v1 + "/leases/{id}/fail", Anybody, a.failLease},

		{"GET", v1 + "/sources", Admin, bare(a.listSources)},
		{"GET", v1 + "/sources/{name}", Admin, bare(a.showSource)},
		{"POST", v1 + "/sources/{name}/pause", Admin, a.pauseSource},
		{"POST", v1 + "/sources/{name}/resume", Admin, a.resumeSource},

		{"GET", v1 + "/schedules", Admin, bare(a.listSchedules)},
		{"POST", v1 + "/schedules/{name}/run", Admin, a.runSchedule},

		{"GET", v1 + "/rules", Admin, bare(a.listRules)},
		{"POST", v1 + "/match", Admin, bare(a.match)},
		{"POST", v1 + "/explain", Admin, a.explain},

		{"GET", v1 + "/dead-letters", Admin, a.listDeadLetters},
		{"GET", v1 + "/dead-letters/{id}", Admin, bare(a.showDeadLetter)},
		{"POST", v1 + "/dead-letters/purge", Admin, a.purge},
		{"POST", v1 + "/dead-letters/redrive", Admin, a.redrive},

		{"POST", v1 + "/replays", Admin, a.replay},
		{"GET", v1 + "/jobs", Admin, bare(a.listJobs)},
		{"GET", v1 + "/jobs/{id}", Admin, bare(a.showJob)},
		{"POST", v1 + "/jobs/{id}/cancel", Admin, a.cancelJob},

		{"GET", v1 + "/events", Consume, a.listEvents},
		{"GET", v1 + "/story", Consume, a.story},
		{"GET", v1 + "/tail", Consume, a.tail},

		{"POST", v1 + "/reload", Admin, a.reload},
		{"GET", v1 + "/openapi.json", Admin, bare(a.openAPI)},
	}
}
