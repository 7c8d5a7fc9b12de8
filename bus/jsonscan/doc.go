// Package jsonscan goes through the text of JSON documents: it finds where values
// end, eight bytes at a time, and holds them to the grammar of RFC 8259 on the way,
// as strictly as encoding/json and gjson.Valid do. Both readers of events are built
// on it, the one in bus at the door and the one in rules.
//
// It makes no values of what it reads, but for the text of strings with escapes.
// UTF-8 is not checked: utf8.Valid is faster. Every function that gives a position
// gives -1 for what is not JSON, and none of them is given a negative one.
package jsonscan
