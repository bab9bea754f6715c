// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// archive is a tar of files, compressed.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	w := tar.NewWriter(compressed)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := compressed.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// serve offers files as a tar at the machine's end of the wire, for pods to fetch, until the test ends.
func (p *place) serve(files map[string]string) (url string) {
	p.t.Helper()
	local := map[string]string{}
	for name, text := range files {
		local[name] = p.local(text)
	}
	data := archive(p.t, local)
	listener, err := net.Listen("tcp", node.HostAddress+":0")
	if err != nil {
		p.t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(data)
	})}}
	server.Start()
	p.t.Cleanup(server.Close)
	return server.URL + "/context.tgz"
}
