// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTagsAndDelete(t *testing.T) {
	f := newFake(t)
	c := newClient(t, Options{})
	repo := f.Host + "/cache"
	if tags, err := c.Tags(t.Context(), repo); err != nil || tags != nil {
		t.Errorf("a repository that is not there: %q, %v", tags, err)
	}
	img := randomImage(t, 100, 1)
	for _, tag := range []string{"b", "a"} {
		publish(t, repo+":"+tag, img)
	}
	tags, err := c.Tags(t.Context(), repo)
	slices.Sort(tags)
	if diff := cmp.Diff([]string{"a", "b"}, tags); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Delete(t.Context(), repo, digest); err != nil {
			t.Error(err)
		}
	}
}

func TestDeleteRefused(t *testing.T) {
	for _, status := range []int{http.StatusMethodNotAllowed, http.StatusForbidden, http.StatusUnauthorized, http.StatusNotImplemented} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			f := newFake(t, times(9, "DELETE", "/manifests/", status))
			img := randomImage(t, 100, 1)
			digest, err := img.Digest()
			if err != nil {
				t.Fatal(err)
			}
			err = newClient(t, Options{}).Delete(t.Context(), f.Host+"/cache", digest)
			var e *Error
			if !errors.As(err, &e) || e.Class != Refused {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestNextPage(t *testing.T) {
	at := &url.URL{Scheme: "https", Host: "r.example", Path: "/v2/a/tags/list"}
	tests := []struct {
		name, link, want string
		fails            bool
	}{
		{"none", "", "", false},
		{"a path", `</v2/a/tags/list?last=b&n=2>; rel="next"`, "https://r.example/v2/a/tags/list?last=b&n=2", false},
		{"relative", `<list?last=b>; rel=next`, "https://r.example/v2/a/tags/list?last=b", false},
		{"another relation", `</x>; rel="prev"`, "", false},
		{"another host", `<https://evil.example/v2/>; rel="next"`, "", true},
		{"another scheme", `<http://r.example/v2/>; rel="next"`, "", true},
		{"no address", `next`, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := nextPage(at, tt.link)
			if (err != nil) != tt.fails {
				t.Fatal(err)
			}
			text := ""
			if got != nil {
				text = got.String()
			}
			if text != tt.want {
				t.Errorf("got %q, want %q", text, tt.want)
			}
		})
	}
}
