// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// TestBombs has 16 GiB of zeros in every compression: refused by then that they are a GiB, with little memory.
func TestBombs(t *testing.T) {
	testenv.Need(t, "gzip", "zstd", "xz", "bzip2")
	commands := []string{"gzip -9", "zstd -19"}
	if *full {
		commands = append(commands, "xz -6", "bzip2 -9")
	}
	for _, command := range commands {
		t.Run(command, func(t *testing.T) {
			pack := packer(t.Context(), command)
			var header bytes.Buffer
			if err := tar.NewWriter(&header).WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: 16 << 30}); err != nil {
				t.Fatal(err)
			}
			first, err := pack(header.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			zeros, err := pack(make([]byte, 64<<20))
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(testenv.Dir(t), "bomb")
			mustWrite(t, name, string(first)+strings.Repeat(string(zeros), 256))
			o := build(t, "tar://"+name, nil, "")
			if o.Code != 2 || !strings.Contains(o.Cause, "it expands to more than 1000 times its size") {
				// What gzip makes of zeros is just not that small.
				if command != "gzip -9" || o.Code != 2 {
					t.Errorf("exit %d: %s", o.Code, o.Log)
				}
			}
			t.Logf("after %v: %s", o.Wall, o.Cause)
		})
	}
}

// TestManyEntries has a million files in an archive, or a sample of them. One is needed.
func TestManyEntries(t *testing.T) {
	directories := 100
	if *full {
		directories = 1000
	}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("ETag", `"1"`)
		tw := tar.NewWriter(rw)
		text := "FROM scratch\nCOPY d50/f500 /\n"
		_ = tw.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(text))})
		_, _ = io.WriteString(tw, text)
		for i := range directories * 1000 {
			if tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/f%d", i/1000, i%1000), Mode: 0o644}) != nil {
				return // the builder listens no more
			}
		}
		_ = tw.Close()
	}))
	defer s.Close()
	o := build(t, s.URL+"/many.tar", nil, "")
	digest(t, o)
	t.Logf("in %v", o.Wall)
}

// answer is what a web server may do with an archive of the world.
type answer struct {
	name string
	// serve gets the archive, compressed with gzip.
	serve func(rw http.ResponseWriter, r *http.Request, data []byte)
	// code and says are the outcome; with 0 it is the right image.
	code int
	says string
}

// TestStrangeServers has what web servers do wrong.
func TestStrangeServers(t *testing.T) {
	w := newWorld(t)
	want := digest(t, build(t, w.dir, nil, ""))
	data, err := os.ReadFile(filepath.Join(w.objects, "context.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := os.ReadFile(filepath.Join(w.objects, "context.tar"))
	if err != nil {
		t.Fatal(err)
	}
	half := func(rw http.ResponseWriter, data []byte) {
		_, _ = rw.Write(data[:len(data)/2])
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	}
	answers := []answer{
		{name: "compressed for the way although nobody asked", serve: func(rw http.ResponseWriter, _ *http.Request, data []byte) {
			rw.Header().Set("Content-Encoding", "gzip")
			_, _ = rw.Write(data)
		}},
		{name: "compressed twice", serve: func(rw http.ResponseWriter, _ *http.Request, data []byte) {
			rw.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(rw)
			_, _ = z.Write(data)
			_ = z.Close()
		}, code: 2, says: "neither a tar archive"},
		{name: "a length that is too short", serve: func(rw http.ResponseWriter, _ *http.Request, data []byte) {
			rw.Header().Set("Content-Length", fmt.Sprint(len(data)-1000))
			_, _ = rw.Write(data[:len(data)-1000])
		}, code: 2, says: "unexpected EOF"},
		{name: "a plain archive without its end", serve: func(rw http.ResponseWriter, _ *http.Request, _ []byte) {
			_, _ = rw.Write(bytes.TrimRight(plain, "\x00"))
		}, code: 2, says: "unexpected EOF"},
		{name: "a length that is too long", serve: func(rw http.ResponseWriter, _ *http.Request, data []byte) {
			rw.Header().Set("Content-Length", fmt.Sprint(len(data)+1000))
			_, _ = rw.Write(data)
		}, code: 5, says: "unexpected EOF"},
		{name: "another range than was asked for", serve: func(rw http.ResponseWriter, r *http.Request, data []byte) {
			rw.Header().Set("ETag", `"1"`)
			if r.Header.Get("Range") == "" {
				rw.Header().Set("Content-Length", fmt.Sprint(len(data)))
				half(rw, data)
			}
			rw.Header().Set("Content-Range", fmt.Sprintf("bytes 100-%d/%d", len(data)-1, len(data)))
			rw.WriteHeader(http.StatusPartialContent)
			_, _ = rw.Write(data[100:])
		}, code: 2, says: "another range"},
		{name: "the whole again instead of a range", serve: func(rw http.ResponseWriter, r *http.Request, data []byte) {
			rw.Header().Set("ETag", `"1"`)
			if r.Header.Get("Range") == "" {
				rw.Header().Set("Content-Length", fmt.Sprint(len(data)))
				half(rw, data)
			}
			_, _ = rw.Write(data)
		}},
		{name: "other bytes in the range", serve: func(rw http.ResponseWriter, r *http.Request, data []byte) {
			rw.Header().Set("ETag", `"1"`)
			if r.Header.Get("Range") == "" {
				rw.Header().Set("Content-Length", fmt.Sprint(len(data)))
				half(rw, data)
			}
			flipped(data, len(data)*3/4)
			http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(data))
		}, code: 2, says: "gzip"},
	}
	for _, a := range answers {
		t.Run(a.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { a.serve(rw, r, bytes.Clone(data)) }))
			defer s.Close()
			login{location: s.URL + "/context.tar.gz", code: a.code, says: a.says}.try(t, want, nil)
		})
	}
}

// flipped changes a byte.
func flipped(data []byte, at int) { data[at] ^= 1 }

// TestRedirects follows a redirect to another server without the credential, and not for ever.
func TestRedirects(t *testing.T) {
	w := newWorld(t)
	want := digest(t, build(t, w.dir, nil, ""))
	var shown []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		shown = append(shown, r.Header.Get("Authorization")+r.Header.Get("X-Amz-Security-Token"))
		http.ServeFile(rw, r, filepath.Join(w.objects, "context.tar.gz"))
	}))
	defer elsewhere.Close()
	var asked int
	first := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked++
		switch {
		case r.Header.Get("Authorization") == "" && asked == 1:
			http.Error(rw, "who are you?", http.StatusUnauthorized)
		case strings.HasPrefix(r.URL.Path, "/round"):
			http.Redirect(rw, r, r.URL.Path+"x", http.StatusFound)
		default:
			http.Redirect(rw, r, elsewhere.URL+"/context.tar.gz", http.StatusTemporaryRedirect)
		}
	}))
	defer first.Close()
	name := strings.TrimPrefix(first.URL, "http://")
	_, guest, _ := awsKeys()
	s3 := awsEnv(first.URL)
	for k, v := range guest.env() {
		s3[k] = v
	}
	azure := map[string]string{"AZURE_STORAGE_SERVICE_ENDPOINT": first.URL + "/account", "AZURE_STORAGE_ACCESS_KEY": azuriteKey}
	for _, l := range []login{
		{name: "web", location: "http://alice:hunter2@" + name + "/context.tar.gz"},
		{name: "s3", location: "s3://bucket/context.tar.gz", env: s3},
		{name: "azure", location: first.URL + "/account/container/context.tar.gz", env: azure},
		{name: "round and round", location: "http://alice:hunter2@" + name + "/round", code: 2, says: "redirects"},
	} {
		t.Run(l.name, func(t *testing.T) {
			shown, asked = nil, 0
			l.try(t, want, []string{"hunter2", guest.Session})
			if got := strings.Join(shown, ""); got != "" {
				t.Errorf("the other server was shown %q", got)
			}
		})
	}
}

// TestLyingStores answers the question for the rest with the right range, the right version, and other bytes.
func TestLyingStores(t *testing.T) {
	w := newWorld(t)
	s3, google := w.stores(t)
	needStores(t)
	lie := func(store string) string {
		to, err := url.Parse(store)
		if err != nil {
			t.Fatal(err)
		}
		behind := &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(to)
				r.Out.Host = r.In.Host
			},
			ModifyResponse: func(r *http.Response) error {
				if r.StatusCode != http.StatusPartialContent {
					return nil
				}
				data, err := io.ReadAll(r.Body)
				if err == nil && len(data) > 100 {
					flipped(data, 100) // in the content of a file, which no compression has a checksum of
				}
				r.Body = io.NopCloser(bytes.NewReader(data))
				return err
			},
		}
		s := httptest.NewServer(behind)
		t.Cleanup(s.Close)
		return s.URL
	}
	for name, run := range map[string]func() testenv.Outcome{
		"s3": func() testenv.Outcome {
			_, through := newWire(t, lie(s3), 200_000)
			return build(t, "s3://bucket/context.tar", awsEnv(through), "")
		},
		"gs": func() testenv.Outcome {
			_, through := newWire(t, lie(google), 200_000)
			return build(t, "gs://bucket/context.tar", map[string]string{"STORAGE_EMULATOR_HOST": through}, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			if o := run(); o.Code != 8 || len(o.Results) > 0 {
				t.Errorf("exit %d: %s", o.Code, o.Log)
			}
		})
	}
}

// TestGoogleReplaced uploads another object under the name of the one that is being read.
func TestGoogleReplaced(t *testing.T) {
	w := newWorld(t)
	_, google := w.stores(t)
	needStores(t)
	x, through := newWire(t, google, 100_000)
	x.onBreak(func() {
		if err := w.replaceGoogle(google); err != nil {
			t.Error(err)
		}
	})
	o := build(t, "gs://bucket/context.tar.gz", map[string]string{"STORAGE_EMULATOR_HOST": through}, "")
	if o.Code != 5 || !strings.Contains(o.Cause, "changed while it was read") {
		t.Errorf("exit %d: %s", o.Code, o.Cause)
	}
}

func (w *world) replaceGoogle(store string) error {
	f, err := os.Open(filepath.Join(w.objects, "context.tar.zst"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, store+"/upload/storage/v1/b/bucket/o?uploadType=media&name=context.tar.gz", f)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("upload: %s", resp.Status)
	}
	return nil
}
