package rules

import "sluice/bus/jsonscan"

// scan reads a whole document and records the values on used paths. It
// reports whether the document is valid JSON.
func (c *scratch) scan(doc []byte) bool {
	c.doc = doc
	i := jsonscan.Space(doc, 0)
	if i >= len(doc) {
		return false
	}
	if doc[i] == '{' {
		i = c.object(i+1, 0, 0)
	} else {
		// Fields are members of an object: anything else has none.
		i = jsonscan.Value(doc, i, &c.open, jsonscan.MaxDepth)
	}
	return i >= 0 && jsonscan.Space(doc, i) == len(doc)
}

// object reads the members of an object, from behind its brace, at a node of
// the path trie and within an array element. Like all readers here it gives
// the position behind what it read, -1 if that is not JSON.
func (c *scratch) object(i int, node int32, elem uint32) int {
	if c.depth++; c.depth > jsonscan.MaxDepth {
		return -1
	}
	d := c.doc
	if i = jsonscan.Space(d, i); i < len(d) && d[i] == '}' {
		c.depth--
		return i + 1
	}
	for {
		if i >= len(d) || d[i] != '"' {
			return -1
		}
		end, escaped := jsonscan.String(d, i+1)
		if end < 0 {
			return -1
		}
		next := c.kid(node, d[i+1:end], escaped)
		if i = jsonscan.Colon(d, end+1); i < 0 {
			return -1
		}
		if next < 0 {
			i = jsonscan.Value(d, i, &c.open, jsonscan.MaxDepth-c.depth)
		} else {
			i = c.value(i, next, elem)
		}
		if i < 0 {
			return -1
		}
		if i < len(d) && d[i] <= ' ' {
			i = jsonscan.Space(d, i)
		}
		if i >= len(d) {
			return -1
		}
		if d[i] == '}' {
			c.depth--
			return i + 1
		}
		if d[i] != ',' {
			return -1
		}
		if i++; i < len(d) && d[i] <= ' ' {
			i = jsonscan.Space(d, i)
		}
	}
}

// kid gives the trie node under a key, -1 if no rule asks for it.
func (c *scratch) kid(node int32, key []byte, escaped bool) int32 {
	if escaped {
		c.key, _ = jsonscan.Unescape(c.key[:0], key)
		key = c.key
	}
	return c.set.trie.walk(node, key)
}

// value reads a value on a used path.
func (c *scratch) value(i int, node int32, elem uint32) int {
	d := c.doc
	if i >= len(d) {
		return -1
	}
	n := &c.set.trie.nodes[node]
	switch d[i] {
	case '{':
		if len(n.kids) == 0 {
			return jsonscan.Value(d, i, &c.open, jsonscan.MaxDepth-c.depth)
		}
		return c.object(i+1, node, elem)
	case '[':
		return c.array(i+1, node, elem)
	}
	return c.scalar(i, n.path, elem)
}

// scalar reads a string, number or word and records it if its path is used.
func (c *scratch) scalar(i int, path int32, elem uint32) int {
	d := c.doc
	switch b := d[i]; {
	case b == '"':
		end, escaped := jsonscan.String(d, i+1)
		if end < 0 {
			return -1
		}
		if path >= 0 {
			c.addText(path, elem, d[i+1:end], escaped)
		}
		return end + 1
	case b == '-' || jsonscan.IsDigit(b):
		end := jsonscan.Number(d, i)
		if end >= 0 && path >= 0 {
			c.addLeaf(path, elem, kindNumber, d[i:end])
		}
		return end
	}
	end := jsonscan.Word(d, i)
	if end >= 0 && path >= 0 {
		c.addLeaf(path, elem, wordKind(d[i]), nil)
	}
	return end
}

func wordKind(first byte) kind {
	switch first {
	case 't':
		return kindTrue
	case 'f':
		return kindFalse
	}
	return kindNull
}

// array reads the elements of an array, from behind its bracket. They are all
// values of the same path; objects and nested arrays among them are recorded
// as elements, so that conditions can be held to the same one.
func (c *scratch) array(i int, node int32, around uint32) int {
	if c.depth++; c.depth > jsonscan.MaxDepth {
		return -1
	}
	d := c.doc
	if i = jsonscan.Space(d, i); i < len(d) && d[i] == ']' {
		c.depth--
		return i + 1
	}
	array := c.openArray(node, around)
	for at := int32(0); ; at++ {
		if i >= len(d) {
			return -1
		}
		if d[i] == '{' || d[i] == '[' {
			i = c.element(i, elem{array: array, parent: around, node: node, index: at})
		} else {
			i = c.scalar(i, c.set.trie.nodes[node].path, around)
		}
		if i < 0 {
			return -1
		}
		if i = jsonscan.Space(d, i); i >= len(d) {
			return -1
		}
		if d[i] == ']' {
			c.depth--
			return i + 1
		}
		if d[i] != ',' {
			return -1
		}
		i = jsonscan.Space(d, i+1)
	}
}

// openArray numbers an array. A node that leads to two arrays within one
// element (by duplicate or dotted keys) makes both count, which the search
// for a common element must know.
func (c *scratch) openArray(node int32, around uint32) uint32 {
	if c.listGen[node] == c.gen && around+1 <= c.lists[node] {
		c.twins = true
	}
	c.listGen[node], c.lists[node] = c.gen, around+1
	c.arrays++
	return c.arrays
}

// element reads an element that is an object or an array.
func (c *scratch) element(i int, e elem) int {
	if !c.set.arrays {
		return c.value(i, e.node, e.parent)
	}
	id := uint32(len(c.elems))
	e.first = int32(len(c.leaves))
	c.elems = append(c.elems, e)
	i = c.value(i, e.node, id)
	c.elems[id].end = int32(len(c.leaves))
	return i
}

// EventView is what matching needs to see of a CloudEvent.
type EventView interface {
	// NumAttributes is the number of context attributes that are set.
	NumAttributes() int
	// Attribute gives the i-th attribute. With literal, value is a JSON
	// literal (an integer or a boolean); otherwise it is a string, unescaped.
	Attribute(i int) (name, value string, literal bool)
	// Data is the raw data bytes.
	Data() []byte
	// DataIsJSON reports whether Data is valid JSON. Other data is invisible
	// to patterns, as if the event had none.
	DataIsJSON() bool
}

// scanEvent records what a scan of the event's JSON form would.
func (c *scratch) scanEvent(e EventView) bool {
	for i := range e.NumAttributes() {
		name, value, literal := e.Attribute(i)
		c.key = append(c.key[:0], name...)
		node := c.set.trie.walk(0, c.key)
		if node < 0 || c.set.trie.nodes[node].path < 0 {
			continue
		}
		from := len(c.text)
		c.text = append(c.text, value...)
		k := kindText
		val := c.text[from:]
		if literal && len(val) > 0 {
			if k = kindNumber; val[0] != '-' && !jsonscan.IsDigit(val[0]) {
				k = wordKind(val[0])
				val = nil
			}
		}
		c.addLeaf(c.set.trie.nodes[node].path, 0, k, val)
	}
	if !e.DataIsJSON() {
		return true
	}
	c.key = append(c.key[:0], "data"...)
	node := c.set.trie.walk(0, c.key)
	if node < 0 {
		return true
	}
	c.doc = e.Data()
	i := jsonscan.Space(c.doc, 0)
	if i = c.value(i, node, 0); i < 0 {
		return false
	}
	return jsonscan.Space(c.doc, i) == len(c.doc)
}
