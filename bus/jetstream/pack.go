package jetstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"sluice/bus"
)

// A pack on disk is one JetStream message:
//
//	"SP" version 0         4 bytes
//	number of records      4
//	time, Unix ns          8
//	crc32c                 4   of all of the above and of the table below
//	length, crc32c         8   for each record
//	the records themselves, one behind the other
//
// Numbers are little endian. JetStream has a checksum of its own over the whole
// message and hides one that fails it; ours says which record is damaged in
// whatever it lets through.
const (
	packHead       = 20
	recordHead     = 8
	packVersion    = 1
	packTimeOffset = 8
	packCRCOffset  = 16
)

// packSize is what the records take as a pack.
func packSize(records [][]byte) int {
	n := packHead + recordHead*len(records)
	for _, r := range records {
		n += len(r)
	}
	return n
}

// encodePack copies the records into a fresh pack. It has no time and no checksum
// until sealPack.
func encodePack(records [][]byte) []byte {
	le, table := binary.LittleEndian, packHead+recordHead*len(records)
	b := make([]byte, table, packSize(records))
	b[0], b[1], b[2] = 'S', 'P', packVersion
	le.PutUint32(b[4:], uint32(len(records)))
	for i, r := range records {
		at := packHead + recordHead*i
		le.PutUint32(b[at:], uint32(len(r)))
		le.PutUint32(b[at+4:], crc32.Checksum(r, castagnoli()))
		b = append(b, r...)
	}
	return b
}

// sealPack sets the time of a pack, and its checksum.
func sealPack(b []byte, at time.Time) {
	le := binary.LittleEndian
	le.PutUint64(b[packTimeOffset:], uint64(at.UnixNano()))
	le.PutUint32(b[packCRCOffset:], headCRC(b, int(le.Uint32(b[4:]))))
}

func headCRC(b []byte, records int) uint32 {
	sum := crc32.Checksum(b[:packCRCOffset], castagnoli())
	return crc32.Update(sum, castagnoli(), b[packHead:packHead+recordHead*records])
}

// castagnoli is the table that the processor has instructions for; the package
// crc32 makes it once.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

var errPackDamaged = errors.New("the head of a pack is damaged")

// decodePack finds the records in b, without copying them. With check, a record
// that fails its checksum is nil. An error means that nothing can be said of any.
func decodePack(b []byte, check bool) (records [][]byte, at time.Time, err error) {
	le := binary.LittleEndian
	if len(b) < packHead || b[0] != 'S' || b[1] != 'P' {
		return nil, time.Time{}, errPackDamaged
	}
	if b[2] != packVersion {
		return nil, time.Time{}, fmt.Errorf("a pack of version %d, written by a newer release", b[2])
	}
	n := int(le.Uint32(b[4:]))
	if n > (len(b)-packHead)/recordHead || check && headCRC(b, n) != le.Uint32(b[packCRCOffset:]) {
		return nil, time.Time{}, errPackDamaged
	}
	records = make([][]byte, n)
	data := b[packHead+recordHead*n:]
	for i := range records {
		size, sum := le.Uint32(b[packHead+recordHead*i:]), le.Uint32(b[packHead+recordHead*i+4:])
		if uint64(size) > uint64(len(data)) {
			break // cut off: this one and all that follow stay nil
		}
		r := data[:size:size]
		data = data[size:]
		if !check || crc32.Checksum(r, castagnoli()) == sum {
			records[i] = r
		}
	}
	return records, time.Unix(0, int64(le.Uint64(b[packTimeOffset:]))), nil
}

// damagedPack stands for a pack of which nothing is left but its number.
func damagedPack(seq uint64, key string) bus.Pack {
	return bus.Pack{Seq: seq, Key: key, Records: [][]byte{nil}}
}
