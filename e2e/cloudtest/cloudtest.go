// SPDX-License-Identifier: Apache-2.0

// Package cloudtest serves on loopback what three clouds ask before their
// registries let anybody in: Amazon's STS, ECR and metadata, Google's token
// server and metadata, Azure's directory and managed identities. It looks at
// what it is sent as the real ones do, as far as a client can tell: who asks, for
// what, with which proof. It is no registry; see [Server.ACR] for what stands
// before one.
package cloudtest

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Server is one of all these services. Its secrets differ from one Server to the next.
type Server struct {
	URL       string // of everything but the directory; plain http
	Directory string // of Azure's directory; https, with the certificate given to New

	AWSPassword string // of user AWS, which ECR gives
	GoogleToken string // of user oauth2accesstoken
	AzureSecret string
	Subject     string // the token of a workload, for whichever cloud it identifies itself to
	keys        map[string]keys
	key         *rsa.PrivateKey
	aadToken    string
	acrRefresh  string
	acrAccess   string
	podToken    string
	msiHeader   string
	mu          sync.Mutex
	asked       []string
}

// keys are AWS keys; those of roles have a session.
type keys struct{ id, secret, session string }

// New starts the services; they end with the test.
func New(t *testing.T, start func(http.Handler) *httptest.Server) *Server {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		AWSPassword: secret("ecr"), GoogleToken: secret("ya29"), AzureSecret: secret("azure"), Subject: secret("subject"),
		aadToken: secret("aad"), acrRefresh: secret("refresh"), acrAccess: secret("access"), podToken: secret("pod"), msiHeader: secret("msi"),
		keys: map[string]keys{
			"env": {"AKIAENV", secret("env"), ""}, "profile": {"AKIAPROFILE", secret("profile"), ""},
			"web": {"ASIAWEB", secret("web"), secret("session")}, "pod": {"ASIAPOD", secret("pod"), secret("session")}, "role": {"ASIAROLE", secret("role"), secret("session")},
		},
		key: key,
	}
	plain := httptest.NewServer(s.plain())
	t.Cleanup(plain.Close)
	directory := start(s.directory())
	t.Cleanup(directory.Close)
	s.URL = plain.URL
	_, port, _ := strings.Cut(strings.TrimPrefix(directory.URL, "https://"), ":")
	s.Directory = "https://localhost:" + port + "/"
	return s
}

func secret(name string) string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails
	return name + "-" + hex.EncodeToString(b)
}

// Secrets lists what must never be seen outside a request to where it belongs.
func (s *Server) Secrets() []string {
	list := []string{s.AWSPassword, s.GoogleToken, s.AzureSecret, s.Subject, s.aadToken, s.acrRefresh, s.acrAccess, s.podToken, s.msiHeader, string(s.privateKey()), basic("AWS", s.AWSPassword)}
	for _, k := range s.keys {
		list = append(list, k.secret)
		if k.session != "" {
			list = append(list, k.session)
		}
	}
	return list
}

// Asked lists what was asked of the services and granted, in order.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *Server) grant(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, what)
}

func (s *Server) plain() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{$}", s.amazon)
	mux.HandleFunc("GET /pod", s.pod)
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
		_, _ = w.Write([]byte("imds-session"))
	})
	mux.HandleFunc("GET /latest/meta-data/iam/security-credentials/{role...}", s.instance)
	mux.HandleFunc("POST /google/token", s.googleKey)
	mux.HandleFunc("POST /google/sts", s.googleSTS)
	mux.HandleFunc("GET /computeMetadata/v1/instance/service-accounts/default/token", s.googleMetadata)
	mux.HandleFunc("GET /msi", s.managedIdentity)
	return mux
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone
}
