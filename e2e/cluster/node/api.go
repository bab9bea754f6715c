// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// group is where the API has a kind that Get reads; "" if Get does not.
func group(kind string) string {
	switch kind {
	case "pod", "serviceaccount":
		return "/api/v1"
	case "taskrun", "pipelinerun":
		return "/apis/tekton.dev/v1"
	case "workflow":
		return "/apis/argoproj.io/v1alpha1"
	}
	return ""
}

// Get reads an object, as the cluster's administrator, into a struct. Who waits for something asks often, and a kubectl for
// each question would take more of the machine than what is waited for.
func (n *Node) Get(ctx context.Context, namespace, kind, name string, into any) error {
	group := group(kind)
	if group == "" {
		return fmt.Errorf("where the API has a %s is not known here", kind)
	}
	client, err := n.client()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, api+group+"/namespaces/"+namespace+"/"+kind+"s/"+name, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", kind, name, resp.Status, body)
	}
	return json.Unmarshal(body, into)
}

// client speaks to the API with the administrator's certificate.
func (n *Node) client() (*http.Client, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.admin != nil {
		return n.admin, nil
	}
	certificate, err := tls.LoadX509KeyPair(n.path("admin.pem"), n.path("admin.key"))
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(n.path("ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	n.admin = &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, RootCAs: roots},
			TLSHandshakeTimeout: 30 * time.Second,
			ForceAttemptHTTP2:   true,
		},
	}
	return n.admin, nil
}
