// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// place is where an upload stands.
type place struct {
	location *url.URL
	offset   int64
	least    int64 // bytes that every part but the last must have at least; 0: any number
}

// errNoProgress is a registry that takes parts and keeps nothing of them.
var errNoProgress = errors.New("the upload does not go on")

// goOn finds out where an interrupted upload goes on. ok is false where there is none, or the registry does not say: then the blob is
// sent from the beginning.
func (u *upload) goOn(ctx context.Context) (at place, ok bool) {
	at, u.open = u.open, place{}
	if at.location == nil || u.fromStart {
		return at, false
	}
	was := at.offset
	resp, err := u.s.do(ctx, http.MethodGet, at.location, nil, http.StatusNoContent)
	if err == nil {
		defer func() { _ = resp.Body.Close() }()
		kept, told := rangeEnd(resp.Header.Get("Range"))
		at.offset, ok = kept, told && kept > 0 && kept >= was && kept <= u.size
		if ok && resp.Header.Get("Location") != "" {
			at.location, err = u.s.location(resp)
		}
	}
	if !ok || err != nil {
		u.s.client.log.Debug("the upload begins anew", zap.Stringer("digest", u.digest), zap.Error(err))
		u.s.abandon(ctx, at.location)
		return at, false
	}
	if b, has := ctx.Value(budgetKey{}).(*budget); has && at.offset > u.furthest {
		u.furthest = at.offset
		b.progress()
	}
	return at, true
}

// rangeEnd reads how many bytes a registry has: "0-1023" are 1024, with or without a unit. "0-0" is what some say of nothing.
func rangeEnd(header string) (bytes int64, told bool) {
	header = strings.TrimPrefix(strings.TrimPrefix(header, "bytes="), "bytes ")
	first, last, ok := strings.Cut(header, "-")
	end, err := strconv.ParseInt(last, 10, 64)
	if !ok || first != "0" || err != nil || end < 0 {
		return 0, false
	}
	if end == 0 {
		return 0, true
	}
	return end + 1, true
}

// maxMisplaced is how often an upload is found to be somewhere else than it should.
const maxMisplaced = 3

// misplaced tells whether a part did not fit what the registry has, as often as that is worth looking at.
func (u *upload) misplaced(err error) bool {
	var status *statusError
	if !errors.As(err, &status) || status.status != http.StatusRequestedRangeNotSatisfiable {
		return false
	}
	u.astray++
	return u.astray <= maxMisplaced
}

// pieceSizes are tried one after the other where a registry, or a proxy before it, refuses what is larger: proxies in use take 100 MB or
// 10 MB, and the smallest default is 1 MB.
func pieceSizes() [3]int64 { return [...]int64{64 << 20, 8 << 20, 512 << 10} }

// takeLess makes parts for a host smaller than the n bytes that it refused, and tells whether that is possible.
func (u *upload) takeLess(err error, n, least int64) bool {
	var status *statusError
	if !errors.As(err, &status) || status.status != http.StatusRequestEntityTooLarge {
		return false
	}
	for _, size := range pieceSizes() {
		if size < n && size >= least {
			u.s.client.setPiece(u.host(), size)
			return true
		}
	}
	return false
}

// piece is how many of left bytes go with one request.
func (c *Client) piece(host string, left, least int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit, ok := c.pieces[host]; ok {
		return min(left, max(limit, least))
	}
	return left
}

func (c *Client) setPiece(host string, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.pieces[host]; !ok || size < old {
		c.pieces[host] = size
	}
}

// doubtful is an answer to a commit that what was sent before an interruption may be to blame for.
func doubtful(err error) bool {
	var status *statusError
	if !errors.As(err, &status) {
		return false
	}
	switch status.status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusRequestedRangeNotSatisfiable:
		return true
	}
	return false
}
