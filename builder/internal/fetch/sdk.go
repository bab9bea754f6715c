// SPDX-License-Identifier: Apache-2.0

package fetch

import "net/http"

// sdkClient makes the requests of a cloud's SDK, which has a client of its own otherwise: one that waits for ever for a server that has gone
// silent, follows to any address, and decompresses what is stored compressed, of which neither sums nor offsets are true then.
type sdkClient struct {
	wire   *wire
	client *http.Client
}

func newSDKClient(n Network) *sdkClient {
	w := newWire(n)
	w.next.DisableCompression = true
	return &sdkClient{wire: w, client: &http.Client{Transport: w, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		err := checkRedirect(req, via)
		if req.Header.Get("Authorization") == "" {
			// Amazon's login has a second part.
			req.Header.Del("X-Amz-Security-Token")
		}
		return err
	}}}
}

// Do is what the SDKs ask of a client. The host of the request is the one that the user named, or that follows from it.
func (c *sdkClient) Do(req *http.Request) (*http.Response, error) {
	return c.client.Do(req.WithContext(withJourney(req.Context(), &journey{host: req.URL.Host}))) //nolint:gosec // the wire below judges the address
}

func (c *sdkClient) close() { c.wire.close() }
