// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	// tagsPage is how many tags are asked for at a time; registries may give fewer.
	tagsPage = 1000
	// maxTagPages bounds what a registry may make us ask, maxTagBytes one answer.
	maxTagPages = 100
	maxTagBytes = 8 << 20
)

// Tags lists the tags of a repository; none if there is no such repository. Errors are of type [*Error], except when ctx ends.
func (c *Client) Tags(ctx context.Context, repo string) ([]string, error) {
	r, err := c.repository("list", repo)
	if err != nil {
		return nil, err
	}
	a := attempt{op: "list", ref: repo, host: r.RegistryStr()}
	s, err := c.session(ctx, r, pulling, "")
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	a.credential = s.credential
	u := s.url("tags", "list")
	u.RawQuery = fmt.Sprintf("n=%d", tagsPage)
	var all []string
	for range maxTagPages {
		tags, next, err := s.tags(ctx, u)
		var status *statusError
		if errors.As(err, &status) && status.status == http.StatusNotFound {
			return nil, nil
		}
		if err != nil {
			return nil, a.fail(ctx, err)
		}
		all = append(all, tags...)
		if next == nil {
			return all, nil
		}
		u = next
	}
	return nil, a.fail(ctx, unsupported("the list of tags has no end"))
}

// tags gets one page, and the address of the next one, nil after the last.
func (s *session) tags(ctx context.Context, u *url.URL) (tags []string, next *url.URL, err error) {
	resp, err := s.do(ctx, http.MethodGet, u, nil, http.StatusOK)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	var page struct {
		Tags []string `json:"tags"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxTagBytes)).Decode(&page); err != nil {
		return nil, nil, unsupported("the list of tags is not valid JSON")
	}
	next, err = nextPage(u, resp.Header.Get("Link"))
	return page.Tags, next, err
}

// nextPage reads the Link header (RFC 8288) of a page. It must not lead to another host.
func nextPage(u *url.URL, link string) (*url.URL, error) {
	target, parameters, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !found || !strings.Contains(strings.ReplaceAll(parameters, `"`, ""), "rel=next") {
		return nil, nil //nolint:nilnil // no further page is no error
	}
	next, err := u.Parse(target)
	if err != nil || next.Host != u.Host || next.Scheme != u.Scheme {
		return nil, unsupported("the list of tags goes on at another host")
	}
	return next, nil
}

// repository parses the name of a repository.
func (c *Client) repository(op, repo string) (name.Repository, error) {
	r, err := name.NewRepository(repo)
	if err != nil {
		return r, invalid(op, repo, escape(err.Error()), "")
	}
	if c.plain(r.RegistryStr(), pushing) {
		return name.NewRepository(repo, name.Insecure)
	}
	return r, nil
}

// Delete removes a manifest, and with it all tags that lead there. One that is not there is no error. Errors are of
// type [*Error], except when ctx ends; that of a registry that permits no deletion is [Refused].
func (c *Client) Delete(ctx context.Context, repo string, digest v1.Hash) error {
	r, err := c.repository("delete", repo)
	if err != nil {
		return err
	}
	ref := repo + "@" + digest.String()
	a := attempt{op: "delete", ref: ref, host: r.RegistryStr()}
	s, err := c.session(ctx, r, pushing, "")
	if err != nil {
		return a.fail(ctx, err)
	}
	a.credential = s.credential
	resp, err := s.do(ctx, http.MethodDelete, s.url("manifests", digest.String()), nil, http.StatusAccepted, http.StatusOK, http.StatusNoContent)
	var status *statusError
	switch {
	case err == nil:
		return resp.Body.Close()
	case errors.As(err, &status) && status.status == http.StatusNotFound && !status.has("UNSUPPORTED"):
		return nil
	case errors.As(err, &status) && (status.status == http.StatusMethodNotAllowed || status.status == http.StatusNotImplemented || status.has("UNSUPPORTED")):
		return &Error{
			Class: Refused, Op: "delete", Host: a.host, Ref: ref, Status: status.status, Codes: status.codes, Reason: status.reason,
			Hint: "this registry does not permit deletion; enable that there, or let a retention rule of the registry do it", Err: err,
		}
	default:
		return a.fail(ctx, err)
	}
}
