package aws

import (
	"context"
	"net/url"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"sluice/config/value"
)

// Queue says where a queue of Amazon SQS is, or of a server with its API.
type Queue struct {
	QueueURL   value.URL `yaml:"queue_url" doc:"The URL of the queue, such as https://sqs.eu-central-1.amazonaws.com/123456789012/orders. One that ends in .fifo is FIFO."`
	Connection `yaml:",inline"`
}

// Validate finds what a single value cannot show.
func (q *Queue) Validate() value.Faults {
	faults := q.Connection.Validate()
	switch {
	case q.QueueURL.IsZero():
		faults.Add("queue_url", "is missing: write the URL of the queue, such as https://sqs.eu-central-1.amazonaws.com/123456789012/orders")
	case q.QueueURL.User != nil:
		faults.Add("queue_url", "holds a user: write credentials instead")
	case strings.Trim(q.QueueURL.Path, "/") == "" || q.QueueURL.RawQuery != "" || q.QueueURL.Fragment != "":
		faults.Add("queue_url", "names no queue: its path has to, as in http://127.0.0.1:9324/000000000000/orders")
	}
	return faults
}

// FIFO tells whether the queue keeps the order.
func (q *Queue) FIFO() bool { return strings.HasSuffix(q.QueueURL.Path, ".fifo") }

// Name is the queue as an address without a protocol: sqs://host/account/queue.
func (q *Queue) Name() string {
	u := url.URL{Scheme: "sqs", Host: q.QueueURL.Host, Path: strings.TrimSuffix(q.QueueURL.Path, "/")}
	return u.String()
}

// Client calls the API of the queue, which is where the queue is unless endpoint says
// otherwise. It tries everything only once. An answer may have maxAnswer bytes; control
// may be nil.
func (q *Queue) Client(ctx context.Context, maxAnswer int64, control Control) (*sqs.Client, error) {
	cfg, err := q.Config(ctx, regionIn(q.QueueURL.Hostname()))
	if err != nil {
		return nil, err
	}
	endpoint := q.QueueURL.Scheme + "://" + q.QueueURL.Host
	if !q.Endpoint.IsZero() {
		endpoint = strings.TrimSuffix(q.Endpoint.URL.String(), "/")
	}
	return sqs.NewFromConfig(cfg, func(o *sqs.Options) {
		o.BaseEndpoint = sdk.String(endpoint)
		o.HTTPClient = bounded(cfg, maxAnswer, control)
		o.Retryer = sdk.NopRetryer{}
	}), nil
}

// regionIn is the region in the name of a host of SQS, such as
// sqs.eu-central-1.amazonaws.com or eu-central-1.queue.amazonaws.com; "" for others.
func regionIn(host string) string {
	name, ok := strings.CutSuffix(strings.TrimSuffix(host, ".cn"), ".amazonaws.com")
	if !ok {
		return ""
	}
	for part := range strings.SplitSeq(name, ".") {
		if strings.Count(part, "-") >= 2 && !strings.HasPrefix(part, "vpce-") {
			return part
		}
	}
	return ""
}
