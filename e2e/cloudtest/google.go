// SPDX-License-Identifier: Apache-2.0

package cloudtest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
)

func (s *Server) privateKey() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		panic(err) // it was made here
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// GoogleKey is the key file of a service account.
func (s *Server) GoogleKey() string {
	return object(map[string]any{
		"type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": string(s.privateKey()),
		"client_email": "builder@p.iam.gserviceaccount.com", "token_uri": s.URL + "/google/token",
	})
}

// GoogleWorkload is the description of a workload identity whose token is in a file.
func (s *Server) GoogleWorkload(tokenFile string) string {
	return object(map[string]any{ //nolint:gosec // names of fields
		"type": "external_account", "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
		"subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": s.URL + "/google/sts",
		"credential_source": map[string]string{"file": tokenFile},
	})
}

func object(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings
	}
	return string(text)
}

// googleKey gives a token for an assertion that the account's key has signed.
func (s *Server) googleKey(w http.ResponseWriter, r *http.Request) {
	if err := s.verify(r.FormValue("assertion")); err != nil || r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant", "error_description": "Invalid JWT Signature.\n" + r.FormValue("assertion")})
		return
	}
	s.grant("google key")
	s.googleToken(w)
}

func (s *Server) verify(jwt string) error {
	sum, signature, err := signed(jwt)
	if err != nil {
		return err
	}
	return rsa.VerifyPKCS1v15(&s.key.PublicKey, crypto.SHA256, sum, signature)
}

// verifyPSS is for those who sign with the newer padding, as Azure's library does.
func (s *Server) verifyPSS(jwt string) error {
	sum, signature, err := signed(jwt)
	if err != nil {
		return err
	}
	return rsa.VerifyPSS(&s.key.PublicKey, crypto.SHA256, sum, signature, nil)
}

// signed is what a JSON web token's signature is of, and the signature.
func signed(jwt string) (sum, signature []byte, err error) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return nil, nil, errors.New("not a JWT")
	}
	signature, err = base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return nil, nil, err
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	return digest[:], signature, nil
}

func (s *Server) googleSTS(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("subject_token") != s.Subject {
		answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_grant", "error_description": "no: " + r.FormValue("subject_token")})
		return
	}
	s.grant("google sts")
	s.googleToken(w)
}

func (s *Server) googleMetadata(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata-Flavor") != "Google" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	s.grant("google metadata")
	s.googleToken(w)
}

func (s *Server) googleToken(w http.ResponseWriter) {
	answer(w, http.StatusOK, map[string]any{ //nolint:gosec // names of fields
		"access_token": s.GoogleToken, "expires_in": 3600, "token_type": "Bearer", "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
	})
}
