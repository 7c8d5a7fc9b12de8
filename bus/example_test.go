package bus_test

import (
	"errors"
	"fmt"
	"net/http"

	"sluice/bus"
)

func ExampleParseJSON() {
	e, err := bus.ParseJSON([]byte(`{"specversion":"1.0","id":"1","source":"/orders","type":"order.paid","data":{"total": 1.50}}`))
	fmt.Println(e.Type(), string(e.Data()), err)

	_, err = bus.ParseJSON([]byte(`{"specversion":"1.0","id":"1","source":"/orders"}`))
	var attribute *bus.AttributeError
	fmt.Println(errors.As(err, &attribute), err)
	// Output:
	// order.paid {"total": 1.50} <nil>
	// true type: missing: every CloudEvent needs one
}

func ExampleFromHTTP() {
	header := http.Header{}
	for name, value := range map[string]string{
		"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/uploads", "ce-type": "object.created",
		"ce-subject": "caf%C3%A9.jpg", "Content-Type": "image/jpeg",
	} {
		header.Set(name, value)
	}
	e, err := bus.FromHTTP(header, []byte{0xff, 0xd8})
	fmt.Println(e.Subject(), err)
	fmt.Println(string(e.AppendJSON(nil)))
	// Output:
	// café.jpg <nil>
	// {"specversion":"1.0","id":"1","source":"/uploads","type":"object.created","datacontenttype":"image/jpeg","subject":"café.jpg","data_base64":"/9g="}
}

func ExampleEvent_CloudEvent() {
	e, err := bus.NewEvent([]bus.Attr{
		{Name: "id", Value: "1"}, {Name: "source", Value: "/orders"}, {Name: "type", Value: "order.paid"},
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	sdk := e.CloudEvent()
	fmt.Println(sdk.ID(), sdk.Source(), sdk.Validate())
	back, err := bus.FromCloudEvent(sdk)
	fmt.Println(back.Type(), err)
	// Output:
	// 1 /orders <nil>
	// order.paid <nil>
}
