package memlog_test

import (
	"context"
	"errors"
	"fmt"

	"sluice/bus"
	"sluice/bus/memlog"
)

// A hook crashes the log after the second append took effect and before its caller
// heard of it.
func ExampleHook() {
	appends := 0
	l := memlog.New(memlog.Options{Hook: func(_ context.Context, op memlog.Op) error {
		if op.Name == memlog.OpAppend && op.When == memlog.After {
			if appends++; appends == 2 {
				return memlog.ErrCrash
			}
		}
		return nil
	}})
	ctx := context.Background()
	for range 2 {
		seq, err := l.Stream(bus.Events).Append(ctx, "", [][]byte{[]byte("x")})
		fmt.Println(seq, errors.Is(err, memlog.ErrCrash))
	}
	info, err := l.Restart().Stream(bus.Events).Info(ctx)
	fmt.Println("after the restart:", info.Packs, err)
	// Output:
	// 1 false
	// 0 true
	// after the restart: 2 <nil>
}
