// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
)

// Fault is what happens instead of an answer, or with it.
type Fault func(r *Registry, w http.ResponseWriter, req *http.Request)

// Named is a fault with what a client may make of it when it never ends.
type Named struct {
	Name  string
	Fault Fault
	// Passing: it is worth another try, so that one such fault must not matter.
	Passing bool
}

// All are the faults, in an order that does not change.
func All() []Named {
	return []Named{
		{"connection cut before", func(_ *Registry, w http.ResponseWriter, _ *http.Request) { hangUp(w) }, true},
		{"connection cut after", func(r *Registry, w http.ResponseWriter, req *http.Request) {
			r.answer(httptest.NewRecorder(), req)
			hangUp(w)
		}, true},
		{"connection cut within", within, true},
		{"429", status(http.StatusTooManyRequests, "TOOMANYREQUESTS"), true},
		{"429 with Retry-After", func(r *Registry, w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Retry-After", "7")
			status(http.StatusTooManyRequests, "TOOMANYREQUESTS")(r, w, req)
		}, true},
		{"500", status(http.StatusInternalServerError, "UNKNOWN"), true},
		{"503 of a proxy", func(_ *Registry, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "<html>service unavailable</html>")
		}, true},
		{"token expired", func(r *Registry, w http.ResponseWriter, _ *http.Request) {
			r.Expire()
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=\"faults\"", "http://"+r.Host+"/token"))
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "token expired")
		}, true},
		{"403", status(http.StatusForbidden, "DENIED"), false},
		{"404", status(http.StatusNotFound, "NAME_UNKNOWN"), false},
		{"413", func(_ *Registry, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}, false},
		{"another digest told", otherDigest, false},
		{"success that did nothing", lie, false},
		{"another body", otherBody, false},
		{"sent elsewhere", func(_ *Registry, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.2:9/elsewhere")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, false},
		{"garbage", func(_ *Registry, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "{\"manifests\": [[[")
		}, false},
		{"done twice", func(r *Registry, w http.ResponseWriter, req *http.Request) {
			body, err := io.ReadAll(req.Body)
			if err != nil {
				hangUp(w)
				return
			}
			req.Body = io.NopCloser(bytes.NewReader(body))
			r.answer(httptest.NewRecorder(), req)
			req.Body = io.NopCloser(bytes.NewReader(body))
			r.answer(w, req)
		}, true},
	}
}

func status(code int, name string) Fault {
	return func(_ *Registry, w http.ResponseWriter, _ *http.Request) { refuse(w, code, name, "by the script") }
}

// hangUp breaks the connection.
func hangUp(http.ResponseWriter) { panic(http.ErrAbortHandler) }

// within takes half of a body, or gives half of one, and breaks the connection.
func within(r *Registry, w http.ResponseWriter, req *http.Request) {
	if req.ContentLength > 1 {
		req.Body = io.NopCloser(io.MultiReader(io.LimitReader(req.Body, req.ContentLength/2), failing{}))
		r.answer(httptest.NewRecorder(), req)
		hangUp(w)
	}
	kept := httptest.NewRecorder()
	r.answer(kept, req)
	copyHeader(w, kept)
	body := kept.Body.Bytes()
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(kept.Code)
	_, _ = w.Write(body[:len(body)/2])
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	hangUp(w)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func copyHeader(w http.ResponseWriter, from *httptest.ResponseRecorder) {
	for k, v := range from.Header() {
		w.Header()[k] = v
	}
}

// otherDigest answers right but for the header.
func otherDigest(r *Registry, w http.ResponseWriter, req *http.Request) {
	kept := httptest.NewRecorder()
	r.answer(kept, req)
	copyHeader(w, kept)
	w.Header().Set("Docker-Content-Digest", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(req.URL.Path+"other"))))
	w.WriteHeader(kept.Code)
	_, _ = w.Write(kept.Body.Bytes())
}

// otherBody answers right but for one bit in the middle, or stores what was not sent.
func otherBody(r *Registry, w http.ResponseWriter, req *http.Request) {
	flip := func(b []byte) {
		if len(b) > 0 {
			b[len(b)/2] ^= 1
		}
	}
	if req.ContentLength > 0 {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			hangUp(w)
			return
		}
		flip(body)
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.answer(w, req)
		return
	}
	kept := httptest.NewRecorder()
	r.answer(kept, req)
	copyHeader(w, kept)
	body := kept.Body.Bytes()
	flip(body)
	w.WriteHeader(kept.Code)
	_, _ = w.Write(body)
}

// lie says that it went well, and nothing was done.
func lie(_ *Registry, w http.ResponseWriter, req *http.Request) {
	_, _ = io.Copy(io.Discard, req.Body)
	path := req.URL.Path
	switch KindOf(req) {
	case "begin":
		w.Header().Set("Location", path+"0123456789abcdef")
		w.WriteHeader(http.StatusAccepted)
	case "patch":
		w.Header().Set("Location", path)
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(req.ContentLength-1, 0)))
		w.WriteHeader(http.StatusAccepted)
	case "mount", "commit", "PUT manifest", "PUT tag":
		for _, d := range []string{req.URL.Query().Get("mount"), req.URL.Query().Get("digest"), path[strings.LastIndexByte(path, '/')+1:]} {
			if strings.HasPrefix(d, "sha256:") {
				w.Header().Set("Docker-Content-Digest", d)
				break
			}
		}
		w.Header().Set("Location", path)
		w.WriteHeader(http.StatusCreated)
	case "cancel":
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusOK)
	}
}
