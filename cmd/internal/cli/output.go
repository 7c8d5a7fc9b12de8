package cli

// What --output takes.
const (
	formatTable = "table"
	formatJSON  = "json"
)
