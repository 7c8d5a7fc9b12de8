package sources_test

import (
	"fmt"
	"testing"

	"sluice/sources"
)

// What has one object holds up nobody who wants others; who wants several waits for none
// that wants the same in another order.
func TestS3ServeLocks(t *testing.T) {
	t.Parallel()
	lock := sources.S3Locks()
	unlock := lock("held")
	for i := range 2000 {
		lock(fmt.Sprint(i))()
	}
	done := make(chan string, 3)
	for _, keys := range [][]string{{"a", "held", "a"}, {"held", "a"}, {"b", "a"}} {
		go func() {
			lock(keys...)()
			done <- keys[0]
		}()
	}
	unlock()
	for range cap(done) {
		<-done
	}
}
