// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/opencontainers/go-digest"
)

// conform is the server of the library but for where that does something else than the specification: it lacks ranges from the end, the
// session instead of a mount that is not possible, layers that are not to be distributed and a few statuses.
func (r *Registry) conform(w http.ResponseWriter, req *http.Request) {
	path := req.URL.Path
	switch kind := KindOf(req); {
	case kind == "cancel":
		w.WriteHeader(http.StatusNoContent)
	case kind == "GET blob" && req.Header.Get("Range") != "":
		r.ranged(w, req)
	case strings.HasPrefix(string(kind), "PUT "):
		r.manifest(w, req)
	case kind == "mount":
		kept := r.record(req)
		if kept.Code < 400 {
			replay(w, kept, kept.Code)
			return
		}
		req.URL.RawQuery = ""
		r.inner.ServeHTTP(w, req)
	case kind == "begin" || kind == "patch" || kind == "commit" && req.Header.Get("Content-Range") != "":
		kept := r.record(req)
		code := kept.Code
		if code == http.StatusInternalServerError {
			// The digest is wrong, or the place is.
			code = map[Kind]int{"begin": http.StatusBadRequest, "patch": http.StatusRequestedRangeNotSatisfiable, "commit": http.StatusRequestedRangeNotSatisfiable}[kind]
		}
		replay(w, kept, code)
	case strings.Contains(path, "/referrers/"):
		kept := r.record(req)
		if kept.Code == http.StatusNotFound {
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			_, _ = io.WriteString(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
			return
		}
		replay(w, kept, kept.Code)
	default:
		r.inner.ServeHTTP(w, req)
	}
}

func (r *Registry) record(req *http.Request) *httptest.ResponseRecorder {
	kept := httptest.NewRecorder()
	r.inner.ServeHTTP(kept, req)
	return kept
}

func replay(w http.ResponseWriter, kept *httptest.ResponseRecorder, code int) {
	copyHeader(w, kept)
	w.WriteHeader(code)
	_, _ = w.Write(kept.Body.Bytes())
}

// ranged knows the size, which a range from the end and one beyond it are about.
func (r *Registry) ranged(w http.ResponseWriter, req *http.Request) {
	repo, id, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/blobs/")
	blob, err := r.Backend.ResolveBlob(req.Context(), repo, ociregistry.Digest(id))
	if err != nil {
		r.inner.ServeHTTP(w, req)
		return
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(req.Header.Get("Range"), "bytes="), "-")
	if from, err := strconv.ParseInt(first, 10, 64); err == nil && from >= blob.Size {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", blob.Size))
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return
	}
	if last, ok := strings.CutPrefix(req.Header.Get("Range"), "bytes=-"); ok {
		if n, err := strconv.ParseInt(last, 10, 64); err == nil {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", max(blob.Size-n, 0), blob.Size-1))
		}
	}
	r.inner.ServeHTTP(w, req)
}

// manifest refuses one whose parts are not there, unless they are not to be, and digests that are none.
func (r *Registry) manifest(w http.ResponseWriter, req *http.Request) {
	repo, id, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/manifests/")
	if strings.Contains(id, ":") && digest.Digest(id).Validate() != nil {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "no digest")
		return
	}
	raw, err := io.ReadAll(req.Body)
	if err != nil {
		hangUp(w)
		return
	}
	type descriptor struct {
		MediaType string
		Digest    ociregistry.Digest
	}
	var parts struct {
		Config            *descriptor
		Layers, Manifests []descriptor
	}
	if json.Unmarshal(raw, &parts) == nil {
		if parts.Config != nil {
			parts.Layers = append(parts.Layers, *parts.Config)
		}
		for _, p := range parts.Layers {
			if _, err := r.Backend.ResolveBlob(req.Context(), repo, p.Digest); err != nil && !strings.Contains(p.MediaType, "nondistributable") {
				refuse(w, http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", string(p.Digest))
				return
			}
		}
		for _, p := range parts.Manifests {
			if _, err := r.Backend.ResolveManifest(req.Context(), repo, p.Digest); err != nil {
				refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", string(p.Digest))
				return
			}
		}
	}
	req.Body = io.NopCloser(bytes.NewReader(raw))
	r.inner.ServeHTTP(w, req)
}
