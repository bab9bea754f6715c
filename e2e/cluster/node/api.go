// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// The tests speak to the API themselves. Who waits for something asks often, and each kubectl would take more of the machine than most
// of what is asked for. What a user does by kubectl, the tests do by Kubectl.

// Get reads a pod, serviceaccount, taskrun, pipelinerun or workflow, as the cluster's administrator, into a struct.
func (n *Node) Get(ctx context.Context, namespace, kind, name string, into any) error {
	version := map[string]string{"taskrun": "tekton.dev/v1", "pipelinerun": "tekton.dev/v1", "workflow": "argoproj.io/v1alpha1"}[kind]
	body, err := n.ask(ctx, http.MethodGet, collection(cmp.Or(version, "v1"), kind, namespace)+"/"+name, "", nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// Create creates the one object of a YAML, in a namespace or where that is "" in the cluster, and returns its name.
func (n *Node) Create(ctx context.Context, namespace, text string) (name string, err error) {
	o, err := decode(text)
	if err != nil {
		return "", err
	}
	body, err := n.ask(ctx, http.MethodPost, collection(o.APIVersion, o.Kind, namespace)+strict, "application/json", o.json)
	if err != nil {
		return "", err
	}
	err = json.Unmarshal(body, &o)
	return o.Metadata.Name, err
}

// Apply creates or changes the objects of a YAML in a namespace, as kubectl apply --server-side does.
func (n *Node) Apply(ctx context.Context, namespace, text string) error {
	for document := range strings.SplitSeq("\n"+text, "\n---\n") {
		o, err := decode(document)
		if err != nil {
			return err
		}
		if o.Kind == "" {
			continue // a comment between two lines
		}
		at := collection(o.APIVersion, o.Kind, namespace) + "/" + o.Metadata.Name
		if _, err := n.ask(ctx, http.MethodPatch, at+strict+"&fieldManager=tests&force=true", "application/apply-patch+yaml", o.json); err != nil {
			return err
		}
	}
	return nil
}

// Logs are what a container has printed.
func (n *Node) Logs(ctx context.Context, namespace, pod, container string) (string, error) {
	body, err := n.ask(ctx, http.MethodGet, collection("v1", "Pod", namespace)+"/"+pod+"/log?container="+container, "", nil)
	return string(body), err
}

// DeleteNamespace deletes a namespace. All that is in it goes soon after.
func (n *Node) DeleteNamespace(ctx context.Context, name string) error {
	_, err := n.ask(ctx, http.MethodDelete, collection("v1", "Namespace", "")+"/"+name, "", nil)
	return err
}

// strict has the API refuse fields that it does not know, as kubectl asks it to.
const strict = "?fieldValidation=Strict"

// object is as much of an object as its place in the API needs, and the whole as JSON.
type object struct {
	APIVersion, Kind string
	Metadata         struct{ Name string }
	json             []byte
}

func decode(text string) (o object, err error) {
	if o.json, err = yaml.YAMLToJSON([]byte(text)); err == nil {
		err = json.Unmarshal(o.json, &o)
	}
	return o, err
}

// collection is where the API has the objects of a kind.
func collection(version, kind, namespace string) string {
	at := "/apis/" + version
	if version == "v1" {
		at = "/api/v1"
	}
	if namespace != "" {
		at += "/namespaces/" + namespace
	}
	return at + "/" + strings.ToLower(kind) + "s"
}

// ask makes one request, and returns what was answered. Whatever is not 2xx is an error.
func (n *Node) ask(ctx context.Context, method, at, contentType string, body []byte) ([]byte, error) {
	client, err := n.client()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, api+at, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, at, resp.Status, answer)
	}
	return answer, err
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
