package aws

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/smithy-go"
)

// Class is what an error of an API is about.
type Class byte

// The classes.
const (
	Outage  Class = iota // the server or the network: it may pass
	Login                // it does not take the credentials, or there are none
	Denied               // it took them, and does not allow this
	Unknown              // there is no such thing
	Busy                 // it wants fewer requests
	Large                // it takes nothing so large
	Invalid              // it will never take this
)

// Status is what a class means in HTTP terms; 0 for an outage.
func (c Class) Status() int {
	switch c {
	case Login:
		return http.StatusUnauthorized
	case Denied:
		return http.StatusForbidden
	case Unknown:
		return http.StatusNotFound
	case Busy:
		return http.StatusTooManyRequests
	case Large:
		return http.StatusRequestEntityTooLarge
	case Invalid:
		return http.StatusBadRequest
	case Outage:
	}
	return 0
}

// Explain says in plain words what an error means and what to do about it.
func Explain(err error) (Class, error) {
	var api smithy.APIError
	var dial *net.OpError
	var address *url.Error
	switch {
	case errors.As(err, &api):
		class, advice := Code(api.ErrorCode())
		var answer interface{ HTTPStatusCode() int }
		if class == Invalid && errors.As(err, &answer) {
			class = ofStatus(answer.HTTPStatusCode())
		}
		text := fmt.Sprintf("%s: %s", api.ErrorCode(), cut(api.ErrorMessage()))
		if advice != "" {
			text = fmt.Sprintf("%s (%s)", advice, strings.TrimSuffix(text, ": "))
		}
		return class, &explained{text, err}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Outage, &explained{cut(err.Error()), err}
	case strings.Contains(err.Error(), "get identity"), strings.Contains(err.Error(), "failed to refresh cached credentials"):
		return Login, NoCredentials(err)
	case errors.As(err, &dial):
		return Outage, fmt.Errorf("the server does not answer, check endpoint: %w", dial)
	case errors.As(err, &address):
		return Outage, fmt.Errorf("the server does not answer, check endpoint: %w", address.Err)
	}
	return Outage, &explained{cut(err.Error()), err}
}

// NoCredentials is the error of a search for credentials that failed.
func NoCredentials(err error) error {
	return &explained{"no credentials were found: set credentials with access_key and secret_key, or those of the environment or ~/.aws; credentials: {instance: true} asks the machine", err}
}

// ofStatus is the class of an answer whose code says nothing.
func ofStatus(status int) Class {
	for _, class := range []Class{Login, Denied, Busy, Large} {
		if class.Status() == status {
			return class
		}
	}
	if status < 400 || status >= 500 || status == http.StatusRequestTimeout {
		return Outage
	}
	return Invalid
}

// explained is an error in words that can be shown.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }

func (e *explained) Unwrap() error { return e.err }

// cut shortens what a server says.
func cut(text string) string {
	const most = 300
	text = strings.ToValidUTF8(text, "�")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// Code tells what an error code is about, and what to do about it: "" where the code
// and the message say all. A code that is not known is Invalid.
func Code(code string) (Class, string) {
	if i := strings.LastIndexAny(code, ".#"); i >= 0 { // AWS.SimpleQueueService.NonExistentQueue
		code = code[i+1:]
	}
	switch code {
	case "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId":
		return Login, "the credentials are wrong: check access_key"
	case "SignatureDoesNotMatch", "InvalidSignatureException":
		return Login, "the credentials are wrong: check secret_key, region and the clock of this machine"
	case "ExpiredToken", "ExpiredTokenException", "InvalidToken", "RequestExpired":
		return Login, "the session token is wrong or has expired: renew session_token"
	case "MissingAuthenticationToken", "MissingAuthenticationTokenException", "IncompleteSignature", "IncompleteSignatureException", "InvalidSecurity", "AuthFailure", "RequestTimeTooSkewed":
		return Login, "the credentials are not taken: check access_key and secret_key, endpoint, and the clock of this machine"
	case "AccessDenied", "AccessDeniedException", "Forbidden", "OptInRequired", "KmsAccessDenied", "KMSAccessDeniedException", "UnauthorizedOperation":
		return Denied, "the credentials do not allow it: give the user or role the permission, or check access_key and secret_key"
	case "NonExistentQueue", "QueueDoesNotExist", "QueueDeletedRecently":
		return Unknown, "there is no such queue: create it, or check queue_url and region"
	case "ResourceNotFoundException":
		return Unknown, "there is no such function: create it, or check function, qualifier and region"
	case "InvalidAddress":
		return Unknown, "there is no such address: check queue_url and region"
	case "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "TooManyRequestsException", "OverLimit",
		"RequestLimitExceeded", "SlowDown", "KmsThrottled", "EC2ThrottledException", "TooManyRequests":
		return Busy, ""
	case "BatchRequestTooLong", "RequestTooLargeException", "RequestEntityTooLarge", "RequestEntityTooLargeException", "MessageTooLong":
		return Large, ""
	case "InternalError", "InternalFailure", "InternalServerError", "ServiceException", "ServiceUnavailable", "ServiceUnavailableException",
		"KmsDisabled", "KmsInvalidState", "KmsNotFound", "KmsOptInRequired":
		return Outage, ""
	}
	return Invalid, ""
}
