package sources

import "sluice/config/value"

// S3Forward are the settings of the S3 that the objects go to.
type S3Forward struct {
	Endpoint string `yaml:"endpoint" doc:"The URL of the other S3. Left out, it is that of AWS in the region."`
	Bucket   string `yaml:"bucket" doc:"The bucket there. Left out, it has the same name as here."`
}

// Validate finds what a single value cannot show.
func (f *S3Forward) Validate() []value.Fault { return nil }
