// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// quick are timings for tests: a failure shows in well under a second.
var quick = Timing{
	Connect: 2 * time.Second, ResponseHeader: 300 * time.Millisecond, NoProgress: 300 * time.Millisecond,
	RetryBudget: 200 * time.Millisecond, FirstDelay: 10 * time.Millisecond,
}

func direct(*http.Request) (*url.URL, error) { return nil, nil }

func network() Network { return Network{Timing: quick, Proxy: direct} }

func newStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left := files(t, s.Dir()); len(left) > 0 {
			t.Errorf("files with names are left in the store: %v", left)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// files lists what is in the store but directories.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func content(t *testing.T, ino *tree.Inode) string {
	t.Helper()
	r, err := ino.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != ino.Size {
		t.Errorf("content has %d bytes, the inode says %d", len(b), ino.Size)
	}
	return string(b)
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func TestHTTP(t *testing.T) {
	const body = "hello\n"
	modified := time.Date(2020, 5, 6, 7, 8, 9, 0, time.UTC)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/dated"):
			w.Header().Set("Last-Modified", modified.Format(http.TimeFormat))
		case r.URL.Path == "/disposition":
			w.Header().Set("Content-Disposition", `attachment; filename="../../evil"`)
		case r.URL.Path == "/gzip" && r.Header.Get("Accept-Encoding") == "gzip":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, body)
			_ = z.Close()
			return
		case r.URL.Path == "/chunked":
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, body)
	})
	for _, tt := range []struct {
		name, path, file string
		mtime            int64
		checksum         string
	}{
		{name: "plain", path: "/a/file.txt", file: "file.txt"},
		{name: "query", path: "/file.txt?x=/y", file: "file.txt"},
		{name: "date", path: "/dated", file: "dated", mtime: modified.Unix()},
		{name: "no name", path: "/", file: "__unnamed__"},
		{name: "empty path", path: "", file: "__unnamed__"},
		{name: "dots", path: "/a/%2e%2e", file: "__unnamed__"},
		{name: "directory", path: "/a/b/", file: "b"},
		{name: "control character", path: "/a%0ab", file: "__unnamed__"},
		{name: "name by the server", path: "/disposition", file: "disposition"},
		{name: "compressed on the way", path: "/gzip", file: "gzip"},
		{name: "no length", path: "/chunked", file: "chunked"},
		{name: "sha256", path: "/f", file: "f", checksum: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(body)))},
		{name: "sha384", path: "/f", file: "f", checksum: fmt.Sprintf("sha384:%x", sha512.Sum384([]byte(body)))},
		{name: "sha512", path: "/f", file: "f", checksum: fmt.Sprintf("sha512:%x", sha512.Sum512([]byte(body)))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := HTTP(t.Context(), newStore(t), srv.URL+tt.path, HTTPOptions{Checksum: tt.checksum, Network: network()})
			if err != nil {
				t.Fatal(err)
			}
			got := []any{f.Name, f.Inode.Meta, content(t, f.Inode), f.Digest.String(), f.Inode.Type}
			sum := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(body)))
			want := []any{tt.file, tree.Meta{Mode: 0o600, MTime: tt.mtime}, body, sum, tree.File}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHTTPFails(t *testing.T) {
	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL+"/x", http.StatusFound))
	t.Cleanup(secure.Close)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		to := func(u string) { http.Redirect(w, r, u, http.StatusFound) }
		switch r.URL.Path {
		case "/file-scheme":
			to("file:///etc/passwd")
		case "/gopher":
			to("gopher://127.0.0.1/")
		case "/metadata":
			to("http://169.254.169.254/latest/meta-data/")
		case "/metadata6":
			to("http://[::ffff:169.254.169.254]/")
		case "/nat64":
			to("http://[64:ff9b::a9fe:a9fe]/")
		case "/loop":
			to("/loop")
		case "/endless":
			for r.Context().Err() == nil {
				_, _ = w.Write(make([]byte, 64<<10))
			}
		case "/long":
			w.Header().Set("Content-Length", "1000001")
		case "/stall":
			_, _ = io.WriteString(w, "some")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/silent":
			<-r.Context().Done()
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "some")
		case "/unauthorized":
			w.WriteHeader(http.StatusUnauthorized)
		case "/gone":
			http.Error(w, "\x1b[2Jno", http.StatusGone)
		case "/busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			_, _ = io.WriteString(w, "x")
		}
	})
	pool := x509.NewCertPool()
	pool.AddCert(secure.Certificate())
	bad := "sha256:" + strings.Repeat("0", 64)
	for _, tt := range []struct {
		name, url, checksum string
		is                  error
		text                string
		temporary           bool
	}{
		{name: "redirect to a file", url: srv.URL + "/file-scheme", is: ErrForbidden, text: `scheme "file"`},
		{name: "redirect to gopher", url: srv.URL + "/gopher", is: ErrForbidden, text: `scheme "gopher"`},
		{name: "redirect to metadata", url: srv.URL + "/metadata", is: ErrForbidden, text: "169.254.169.254"},
		{name: "redirect to mapped metadata", url: srv.URL + "/metadata6", is: ErrForbidden, text: "169.254.169.254"},
		{name: "redirect to translated metadata", url: srv.URL + "/nat64", is: ErrForbidden, text: "169.254.169.254"},
		{name: "metadata", url: "http://169.254.169.254/latest", is: ErrForbidden},
		{name: "metadata by name", url: "http://Metadata.Google.Internal./latest", is: ErrForbidden},
		{name: "redirects without end", url: srv.URL + "/loop", is: ErrForbidden, text: "more than 5 redirects"},
		{name: "downgrade", url: secure.URL, is: ErrForbidden, text: "from https to http"},
		{name: "endless", url: srv.URL + "/endless", is: ErrLimit},
		{name: "announced too long", url: srv.URL + "/long", is: ErrLimit},
		{name: "stalled", url: srv.URL + "/stall", is: errStalled, temporary: true},
		{name: "no answer", url: srv.URL + "/silent", temporary: true, text: "timeout"},
		{name: "cut off", url: srv.URL + "/cut", is: io.ErrUnexpectedEOF, temporary: true},
		{name: "unauthorized", url: srv.URL + "/unauthorized", text: "no credential was given for 127.0.0.1"},
		{name: "gone", url: srv.URL + "/gone", text: "invalid response status 410 Gone"},
		{name: "busy", url: srv.URL + "/busy", text: "invalid response status 503", temporary: true},
		{name: "checksum", url: srv.URL, checksum: bad, is: ErrChecksum, text: "(expected: " + bad + ")"},
		{name: "unknown checksum", url: srv.URL, checksum: "md5:00", text: "unsupported digest algorithm"},
		{name: "short checksum", url: srv.URL, checksum: "sha256:00", text: "invalid checksum digest format"},
		{name: "no scheme", url: "//host/x", is: ErrForbidden},
		{name: "file", url: "file:///etc/passwd", text: "not a valid"},
		{name: "ftp", url: "ftp://host/x", is: ErrForbidden},
		{name: "invalid", url: "http://user:secret word@host/", text: "not a valid"},
		{name: "unreachable", url: "http://127.0.0.1:1/?token=secret", temporary: true, text: "http://127.0.0.1:1/: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := network()
			n.RootCAs = pool
			start := time.Now()
			_, err := HTTP(t.Context(), newStore(t), tt.url, HTTPOptions{Checksum: tt.checksum, MaxBytes: 1_000_000, Network: n})
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v, want %v", err, tt.is)
			}
			if !strings.Contains(err.Error(), tt.text) || e.Temporary != tt.temporary {
				t.Errorf("got %q, temporary %v", err, e.Temporary)
			}
			if strings.Contains(err.Error(), "secret") || strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("%q says too much", err)
			}
			if d := time.Since(start); d > 30*time.Second {
				t.Errorf("it took %s", d)
			}
		})
	}
}

func TestHTTPUnknownAuthority(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(srv.Close)
	_, err := HTTP(t.Context(), newStore(t), srv.URL, HTTPOptions{Network: network()})
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) || temporary(err) {
		t.Errorf("got %v", err)
	}
}

func TestHTTPRetries(t *testing.T) {
	var n atomic.Int32
	srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) {
		case 1:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "longer than what is right")
		default:
			_, _ = io.WriteString(w, "right")
		}
	})
	net := network()
	var told []string
	net.OnRetry = func(reason string, _ time.Duration) { told = append(told, reason) }
	f, err := HTTP(t.Context(), newStore(t), srv.URL, HTTPOptions{Network: net})
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, f.Inode); got != "right" || n.Load() != 3 {
		t.Errorf("got %q after %d requests", got, n.Load())
	}
	want := []string{srv.URL + ": invalid response status 429 Too Many Requests", srv.URL + ": unexpected EOF"}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
}

func TestHTTPCredentials(t *testing.T) {
	var seen []string
	record := func(r *http.Request) {
		seen = append(seen, r.URL.Path+" "+r.Header.Get("Authorization"))
	}
	other := serve(t, func(_ http.ResponseWriter, r *http.Request) { record(r) })
	var back string
	hop := serve(t, func(w http.ResponseWriter, r *http.Request) {
		record(r)
		http.Redirect(w, r, back+"/back", http.StatusFound)
	})
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		record(r)
		switch r.URL.Path {
		case "/same":
			http.Redirect(w, r, "/end", http.StatusFound)
		case "/full":
			http.Redirect(w, r, back+"/end", http.StatusFound)
		case "/other":
			http.Redirect(w, r, other.URL+"/there", http.StatusFound)
		case "/round":
			http.Redirect(w, r, hop.URL+"/hop", http.StatusFound)
		}
	})
	back = srv.URL
	token := func(host string) string { return map[string]string{"127.0.0.1": "T"}[host] }
	header := func(string) string { return "Custom H" }
	for _, tt := range []struct {
		name, url string
		opts      HTTPOptions
		want      []string
	}{
		{"token", srv.URL + "/a", HTTPOptions{Token: token}, []string{"/a Bearer T"}},
		{"header", srv.URL + "/a", HTTPOptions{Header: header}, []string{"/a Custom H"}},
		{"both", srv.URL + "/a", HTTPOptions{Header: header, Token: token}, []string{"/a Bearer T"}},
		{"same host", srv.URL + "/same", HTTPOptions{Token: token}, []string{"/same Bearer T", "/end Bearer T"}},
		{"other port", srv.URL + "/other", HTTPOptions{Token: token}, []string{"/other Bearer T", "/there "}},
		{"there and back", srv.URL + "/round", HTTPOptions{Token: token}, []string{"/round Bearer T", "/hop ", "/back "}},
		{"in the URL, same host", strings.Replace(srv.URL, "://", "://u:p@", 1) + "/same", HTTPOptions{}, []string{"/same Basic dTpw", "/end Basic dTpw"}},
		{"in the URL, same host in full", strings.Replace(srv.URL, "://", "://u:p@", 1) + "/full", HTTPOptions{}, []string{"/full Basic dTpw", "/end Basic dTpw"}},
		{"in the URL", strings.Replace(srv.URL, "://", "://u:p@", 1) + "/other", HTTPOptions{}, []string{"/other Basic dTpw", "/there "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen = nil
			tt.opts.Network = network()
			if _, err := HTTP(t.Context(), newStore(t), tt.url, tt.opts); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, seen); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHTTPThroughProxy(t *testing.T) {
	var asked []string
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "http://100.100.100.200/latest", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, "by proxy")
	})
	n := network()
	n.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse(proxy.URL) }
	f, err := HTTP(t.Context(), newStore(t), "http://far.example/f", HTTPOptions{Network: n})
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, f.Inode); got != "by proxy" {
		t.Errorf("got %q", got)
	}
	if _, err := HTTP(t.Context(), newStore(t), "http://far.example/redirect", HTTPOptions{Network: n}); !errors.Is(err, ErrForbidden) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"http://far.example/f", "http://far.example/redirect"}, asked); diff != "" {
		t.Error(diff)
	}
}

func TestHTTPCancelled(t *testing.T) {
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		cancel(cause)
		<-r.Context().Done()
	})
	_, err := HTTP(ctx, newStore(t), srv.URL, HTTPOptions{Network: network()})
	var e *Error
	if !errors.Is(err, cause) || errors.As(err, &e) {
		t.Errorf("got %v", err)
	}
}

func TestAddresses(t *testing.T) {
	user := func() hop { return hop{journey: &journey{host: "h"}} }
	led := func(local bool) hop { return hop{journey: &journey{host: "h", local: local}, redirected: true} }
	for _, tt := range []struct {
		addr string
		hop  hop
		ok   bool
	}{
		{"127.0.0.1", user(), true},
		{"10.0.0.1", user(), true},
		{"169.254.169.254", user(), false},
		{"fe80::1%eth0", user(), false},
		{"fd00:ec2::254", user(), false},
		{"127.0.0.1", led(false), false},
		{"::1", led(false), false},
		{"0.0.0.0", led(false), false},
		{"::ffff:127.0.0.1", led(false), false},
		{"127.0.0.1", led(true), true},
		{"10.0.0.1", led(false), true},
		{"224.0.0.1", led(false), false},
		{"93.184.216.34", led(false), true},
	} {
		if err := tt.hop.check(netip.MustParseAddr(tt.addr)); (err == nil) != tt.ok {
			t.Errorf("%s, redirected %v: %v", tt.addr, tt.hop.redirected, err)
		}
	}
	// A name that turns out to be this machine, after a redirect: as the dialer sees it.
	ctx := context.WithValue(t.Context(), hopKey{}, led(false))
	if err := checkDial(ctx, "tcp", net.JoinHostPort("127.0.0.1", "80"), nil); !errors.Is(err, ErrForbidden) {
		t.Errorf("got %v", err)
	}
	if err := led(false).checkName("LOCALHOST."); !errors.Is(err, ErrForbidden) {
		t.Errorf("got %v", err)
	}
}

func TestEscape(t *testing.T) {
	got := escape("a\x1b[2J\nb\xff" + strings.Repeat("x", 300))
	if !strings.HasPrefix(got, `a\x1b[2J\nb\ufffdx`) || len(got) > 300 || bytes.ContainsAny([]byte(got), "\x1b\n") {
		t.Errorf("got %q", got)
	}
}

// TestIsRedirected tells the host that the user named from those that servers name.
func TestIsRedirected(t *testing.T) {
	for _, tt := range []struct {
		named, asked string
		want         bool
	}{
		{"files.test", "files.test", false},
		{"files.test:", "files.test", false}, // the HTTP client drops an empty port
		{"Files.test", "files.TEST", false},
		{"files.test", "files.test:8080", true},
		{"files.test", "other.test", true},
	} {
		ctx := withJourney(t.Context(), &journey{host: tt.named})
		if got := isRedirected(ctx, &url.URL{Host: tt.asked}); got != tt.want {
			t.Errorf("%s named, %s asked: %v", tt.named, tt.asked, got)
		}
	}
}
