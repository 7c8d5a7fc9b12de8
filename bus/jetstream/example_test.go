package jetstream_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"

	"sluice/bus"
	"sluice/bus/jetstream"
)

func Example() {
	dir, err := os.MkdirTemp("", "sluice")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	ctx := context.Background()
	l, err := jetstream.Open(ctx, jetstream.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()

	backlog := l.Stream(bus.Backlog)
	seq, err := backlog.Append(ctx, "thumbs", [][]byte{[]byte("one"), []byte("two")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("on disk as pack", seq)

	r, err := backlog.Read(ctx, "thumbs", 1)
	if err != nil {
		log.Fatal(err)
	}
	p, err := r.Next(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d of %s: %s\n", p.Seq, p.Key, p.Records)
	// Output:
	// on disk as pack 1
	// 1 of thumbs: [one two]
}
