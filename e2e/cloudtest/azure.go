// SPDX-License-Identifier: Apache-2.0

package cloudtest

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"strings"
	"time"
)

// The application that Azure's directory here knows.
const (
	Tenant = "11111111-1111-4111-8111-111111111111"
	Client = "22222222-2222-4222-8222-222222222222"
)

// Azure are the variables of the application, without proof of being it.
func (s *Server) Azure() map[string]string {
	return map[string]string{"AZURE_TENANT_ID": Tenant, "AZURE_CLIENT_ID": Client, "AZURE_AUTHORITY_HOST": s.Directory}
}

// AzureCertificate is the file with the application's certificate and key.
func (s *Server) AzureCertificate() string {
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &s.key.PublicKey, s.key)
	if err != nil {
		panic(err) // of a key that was made here
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + string(s.privateKey())
}

// AzureManaged are the variables of a managed identity.
func (s *Server) AzureManaged() map[string]string {
	return map[string]string{"IDENTITY_ENDPOINT": s.URL + "/msi", "IDENTITY_HEADER": s.msiHeader}
}

// directory is the directory of one tenant.
func (s *Server) directory() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		base := strings.TrimSuffix(s.Directory, "/") + "/" + r.PathValue("tenant")
		answer(w, http.StatusOK, map[string]string{
			"issuer": base + "/v2.0", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token",
		})
	})
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", func(w http.ResponseWriter, r *http.Request) {
		way := ""
		switch {
		case r.PathValue("tenant") != Tenant || r.FormValue("client_id") != Client || !strings.HasPrefix(r.FormValue("scope"), "https://containerregistry.azure.net/.default"):
		case r.FormValue("client_secret") == s.AzureSecret:
			way = "azure secret"
		case r.FormValue("client_assertion") == s.Subject:
			way = "azure assertion"
		case s.verifyPSS(r.FormValue("client_assertion")) == nil:
			way = "azure certificate"
		}
		if way == "" {
			answer(w, http.StatusUnauthorized, map[string]string{
				"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided: " + r.FormValue("client_secret") + r.FormValue("client_assertion") + " Trace ID: 1",
			})
			return
		}
		s.grant(way)
		answer(w, http.StatusOK, map[string]any{"access_token": s.aadToken, "expires_in": 3600, "token_type": "Bearer"})
	})
	return mux
}

// managedIdentity is the service of a host for applications.
func (s *Server) managedIdentity(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-IDENTITY-HEADER") != s.msiHeader || r.FormValue("resource") != "https://containerregistry.azure.net" {
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
		return
	}
	s.grant("azure managed")
	answer(w, http.StatusOK, map[string]any{
		"access_token": s.aadToken, "expires_on": time.Now().Add(time.Hour).Unix(), "resource": r.FormValue("resource"), "token_type": "Bearer",
	})
}

// ACR stands before a registry as Azure's does: it takes tokens of the directory
// for its own, and lets nobody in without. It is for the host that a request names.
func (s *Server) ACR(registry http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /oauth2/exchange", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("grant_type") != "access_token" || r.FormValue("access_token") != s.aadToken || r.FormValue("service") != r.Host {
			answer(w, http.StatusUnauthorized, map[string]any{"errors": []any{map[string]string{"code": "UNAUTHORIZED", "message": r.FormValue("access_token")}}})
			return
		}
		s.grant("acr exchange")
		answer(w, http.StatusOK, map[string]string{"refresh_token": s.acrRefresh})
	})
	mux.HandleFunc("POST /oauth2/token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("grant_type") != "refresh_token" || r.FormValue("refresh_token") != s.acrRefresh || r.FormValue("service") != r.Host {
			answer(w, http.StatusUnauthorized, map[string]any{"errors": []any{map[string]string{"code": "UNAUTHORIZED", "message": "no"}}})
			return
		}
		s.grant("acr token")
		answer(w, http.StatusOK, map[string]string{"access_token": s.acrAccess})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+s.acrAccess {
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://`+r.Host+`/oauth2/token",service="`+r.Host+`"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization")
		registry.ServeHTTP(w, r)
	})
	return mux
}
