package cli

// defaultServer is where `sluice dev` and `sluice serve` listen unless told.
const defaultServer = "http://127.0.0.1:8484"
