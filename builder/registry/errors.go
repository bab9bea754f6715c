// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Class says what can be done about an [Error]. The numbers in the comments are
// the exit codes of the program.
type Class uint8

// The classes of an [Error].
const (
	// Invalid is a reference or an option that is malformed (2).
	Invalid Class = iota + 1
	// Unsupported is an image that cannot be used as a base: no manifest for the
	// platform, schema 1, foreign or encrypted layers, Windows (3).
	Unsupported
	// Transient is worth another try later: network, overload, rate limit (5).
	Transient
	// Refused is the registry's last word: authentication, denied, not found,
	// immutable tag, quota, untrusted certificate (6).
	Refused
	// Integrity is content that is not what its digest says (8).
	Integrity
)

// String returns the name of the class in lower case.
func (c Class) String() string {
	switch c {
	case Invalid:
		return "invalid"
	case Unsupported:
		return "unsupported"
	case Transient:
		return "transient"
	case Refused:
		return "refused"
	case Integrity:
		return "integrity"
	}
	return "class " + strconv.Itoa(int(c))
}

// Error is what went wrong with one registry, as one sentence for people and as
// fields for the exit code. Cancellation of the caller's context and failures of
// the caller's own layers (a file that cannot be read) are never an Error.
type Error struct {
	Class  Class
	Op     string   // what was being done, as the beginning of the sentence: "pull", "push"
	Host   string   // host[:port] of the registry; empty when none was asked
	Ref    string   // the reference as the user wrote it
	Status int      // HTTP status of the answer; 0 when there was none
	Codes  []string // error codes of the registry's answer, such as "DENIED"
	Reason string   // what the registry or the network said, escaped and cut
	Hint   string   // the way out; may be empty
	Moved  []string // tags that already point to the new digest after a failed Publish
	Err    error    // the cause, for errors.Is and errors.As; may be nil
}

// Error returns one line: operation, reference, host and status, reason, way out.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Op, e.Ref)
	if e.Status != 0 {
		fmt.Fprintf(&b, "%s answered %d %s", e.Host, e.Status, http.StatusText(e.Status))
		if e.Reason != "" {
			b.WriteString(": ")
		}
	}
	b.WriteString(e.Reason)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	if len(e.Moved) > 0 {
		b.WriteString("; these tags have moved already: " + strings.Join(e.Moved, ", "))
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// finding is a judgement of our own on what a registry sent.
type finding struct {
	class   Class
	text    string
	passing bool // worth another try before it is final
}

func (f *finding) Error() string { return f.text }

func integrity(format string, args ...any) error {
	return &finding{class: Integrity, text: fmt.Sprintf(format, args...)}
}

func unsupported(format string, args ...any) error {
	return &finding{class: Unsupported, text: fmt.Sprintf(format, args...)}
}

// classOf returns the class of a finding in the chain, or 0.
func classOf(err error) Class {
	var f *finding
	if errors.As(err, &f) {
		return f.class
	}
	return 0
}

// sourceError is a failure of the layer that the caller gave us. It is kept
// apart because the HTTP client would otherwise report it as the network's.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// statusError is an answer with a status that the request does not allow.
type statusError struct {
	host   string
	status int
	codes  []string
	reason string

	retryAfter time.Duration
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s answered %d %s: %s", e.host, e.status, http.StatusText(e.status), e.reason)
}

func (e *statusError) has(codes ...string) bool {
	for _, have := range e.codes {
		for _, c := range codes {
			if have == c {
				return true
			}
		}
	}
	return false
}

const (
	maxErrorBody = 64 << 10
	maxReason    = 256
)

// checkStatus returns nil when the answer has one of the allowed statuses, and
// otherwise what the registry said. It reads the body of a refused answer.
func checkStatus(resp *http.Response, allowed ...int) error {
	for _, s := range allowed {
		if resp.StatusCode == s {
			return nil
		}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		body = nil // the status says more than a second failure would
	}
	e := &statusError{host: resp.Request.URL.Host, status: resp.StatusCode}
	e.retryAfter = parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	e.codes, e.reason = reasonOf(resp.Header.Get("Content-Type"), body)
	return e
}

// reasonOf extracts what a registry, a token server or a proxy wants to say.
func reasonOf(contentType string, body []byte) (codes []string, reason string) {
	var structured struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"`
	}
	if json.Unmarshal(body, &structured) == nil {
		var said []string
		for _, e := range structured.Errors {
			codes = append(codes, e.Code)
			said = append(said, strings.Trim(e.Code+": "+e.Message, ": ")) // Artifactory has no code beside some messages
		}
		if len(said) > 0 {
			return codes, escape(strings.Join(said, "; "))
		}
		if structured.Details != "" {
			return nil, escape(structured.Details)
		}
	}
	text := strings.TrimSpace(string(body))
	if strings.HasPrefix(contentType, "text/html") || strings.HasPrefix(text, "<") {
		return nil, "an HTML page instead of a registry's answer: " + escape(text)
	}
	return nil, escape(text)
}

// escape cuts s to 256 bytes and makes control characters visible, so that a
// registry cannot write to the terminal or forge lines of the log.
func escape(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason] + "..."
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == utf8.RuneError, !unicode.IsPrint(r):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// attempt names what an error belongs to.
type attempt struct {
	op, ref, host string
	credential    string // where the credential came from; "" for none
}

// fail turns whatever a request returned into the error for the caller. When the
// caller's context has ended, that is the cause.
func (a attempt) fail(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w", a.op, a.ref, context.Cause(ctx))
	}
	var done *Error
	if errors.As(err, &done) {
		return err
	}
	var source *sourceError
	if errors.As(err, &source) && classOf(err) == Integrity {
		return &Error{Class: Integrity, Op: a.op, Ref: a.ref, Reason: source.Error(), Err: err}
	}
	if errors.As(err, &source) {
		return fmt.Errorf("%s %s: reading the layer: %w", a.op, a.ref, source.err)
	}
	var login *loginError
	if errors.As(err, &login) {
		a.credential = login.credential
	}
	e := &Error{Op: a.op, Host: a.host, Ref: a.ref, Err: err}
	var status *statusError
	var ggcr *transport.Error
	switch {
	case isCertificate(err): // first: after it the fallback to http fails too, in a less telling way
		a.classifyNetwork(e, err)
	case errors.As(err, &status):
		e.Host, e.Status, e.Codes, e.Reason = status.host, status.status, status.codes, status.reason
		a.classifyStatus(e)
	case errors.As(err, &ggcr):
		a.fromTokenServer(e, ggcr)
		a.classifyStatus(e)
	default:
		a.classifyNetwork(e, err)
	}
	return e
}

// isCertificate reports whether the registry's certificate was not accepted.
func isCertificate(err error) bool {
	var unknown x509.UnknownAuthorityError
	var verify *tls.CertificateVerificationError
	return errors.As(err, &unknown) || errors.As(err, &verify)
}

// unwrapURL removes what the HTTP client puts around an error: the address, whose
// query may be a signature.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// fromTokenServer fills e from a failure of the login that precedes a request.
func (a attempt) fromTokenServer(e *Error, g *transport.Error) {
	e.Status = g.StatusCode
	if g.Request != nil && g.Request.URL != nil {
		e.Host = g.Request.URL.Host
	}
	var said []string
	for _, d := range g.Errors {
		e.Codes = append(e.Codes, string(d.Code))
		said = append(said, string(d.Code)+": "+d.Message)
	}
	if len(said) > 0 {
		e.Reason = escape(strings.Join(said, "; "))
		return
	}
	// The body is not exported; the text holds it after the status.
	_, rest, _ := strings.Cut(g.Error(), http.StatusText(g.StatusCode)+": ")
	_, e.Reason = reasonOf("", []byte(rest))
}

// classifyStatus sets class and way out for an answered request.
func (a attempt) classifyStatus(e *Error) {
	e.Class = Refused
	st := &statusError{codes: e.Codes}
	switch {
	case e.Status == http.StatusUnauthorized && a.credential == "":
		e.Hint = "no credentials for " + a.host + " were found; add them to the config.json that DOCKER_CONFIG names, or set " + variableOfHost(a.host) + "_USER and _PASSWORD"
	case e.Status == http.StatusUnauthorized:
		e.Hint = "the credentials for " + a.host + " from " + a.credential + " were not accepted"
	case e.Status == http.StatusForbidden && a.credential == "":
		e.Hint = "no credentials for " + a.host + " were found, and it does not allow this without"
	case e.Status == http.StatusForbidden:
		e.Hint = "the credentials for " + a.host + " from " + a.credential + " do not allow this"
	case e.Status == http.StatusNotFound:
		e.Hint = "check the name and the tag; some registries say this too when the credentials do not allow access or the repository was not created"
	case e.Status == http.StatusRequestEntityTooLarge:
		e.Hint = "a proxy in front of the registry limits the size of uploads (for ingress-nginx: proxy-body-size)"
	case e.Status == http.StatusInsufficientStorage:
		e.Hint = "the registry's storage or quota is used up"
	case e.Status == http.StatusNotImplemented, e.Status == http.StatusHTTPVersionNotSupported:
		e.Hint = "the registry, or a proxy in front of it, does not know this request"
	case e.Status == http.StatusTooManyRequests:
		e.Class, e.Hint = Transient, "the registry limits the rate of requests; authenticate, use a mirror, or try later"
	case e.Status == http.StatusRequestTimeout, e.Status == 499, e.Status >= 500:
		e.Class = Transient
	case e.Status == http.StatusBadRequest && st.has("DIGEST_INVALID", "SIZE_INVALID"):
		e.Class, e.Hint = Integrity, "the content changed between hashing and sending, or on the way"
	case e.Status >= 300 && e.Status < 400:
		e.Hint = "the registry redirects in a way that is not followed"
	case e.Status < 300:
		e.Class, e.Hint = Transient, "this is not how a registry answers; is it one?"
	}
}

// classifyNetwork sets class, reason and way out for a request without answer.
func (a attempt) classifyNetwork(e *Error, err error) {
	e.Class = Transient
	var plain *plainError
	if errors.Is(err, http.ErrSchemeMismatch) && errors.As(err, &plain) {
		err = plain.err
	}
	reason := err
	var u *url.Error
	if errors.As(err, &u) { // of two attempts, https and http, the first
		reason = u.Err
	}
	e.Reason = escape(reason.Error())
	if isConnecting(reason) {
		e.Reason = "cannot reach " + a.host + ": " + e.Reason
	}
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		e.Class, e.Hint = Refused, "the registry speaks plain http; allow it with KANIKO_INSECURE_REGISTRY="+a.host
	case errors.Is(err, errForeignRealm):
		e.Class, e.Hint = Refused, "if that server may have them, name it in KANIKO_REGISTRY_TOKEN_REALM"
	case errors.Is(err, errPlainHTTP), errors.Is(err, errRedirect), errors.Is(err, errChallenge):
		e.Class = Refused
	case errors.As(err, &unknown):
		e.Class, e.Hint = Refused, "its certificate authority is not known here; add it with KANIKO_REGISTRY_CERTIFICATE="+a.host+"=FILE"
	case errors.As(err, &hostname), errors.As(err, &invalid), errors.As(err, &verify):
		e.Class, e.Hint = Refused, "its certificate is not valid for this host or time"
	case errors.As(err, &alert):
		e.Class, e.Hint = Refused, "the TLS handshake was refused; does the registry ask for a client certificate (KANIKO_REGISTRY_CLIENT_CERT)?"
	case classOf(err) != 0:
		e.Class = classOf(err)
	}
}

var (
	errPlainHTTP    = errors.New("plain http is not allowed to this host")
	errForeignRealm = errors.New("the credentials would go to another host")
	errRedirect     = errors.New("redirect not followed")
	errChallenge    = errors.New("this way to log in is not followed")
	errStalled      = errors.New("no byte moved for too long")
)
