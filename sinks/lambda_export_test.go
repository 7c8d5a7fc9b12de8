package sinks

// LambdaHost is where a lambda sink sends its requests.
func LambdaHost(s Sink) string { return s.(*lambdaSink).http.request.Host }
