// Package jetstream keeps the durable log of package bus on NATS JetStream.
package jetstream
