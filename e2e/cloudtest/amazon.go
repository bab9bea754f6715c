// SPDX-License-Identifier: Apache-2.0

package cloudtest

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// AWSKeys are the variables of plain keys.
func (s *Server) AWSKeys() map[string]string {
	return map[string]string{"AWS_ACCESS_KEY_ID": s.keys["env"].id, "AWS_SECRET_ACCESS_KEY": s.keys["env"].secret}
}

// AWSProfile is a credentials file.
func (s *Server) AWSProfile() string {
	return fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", s.keys["profile"].id, s.keys["profile"].secret)
}

// AWSEndpoints send the SDK here.
func (s *Server) AWSEndpoints() map[string]string {
	return map[string]string{
		"AWS_ENDPOINT_URL_ECR": s.URL, "AWS_ENDPOINT_URL_ECR_PUBLIC": s.URL, "AWS_ENDPOINT_URL_STS": s.URL,
		"AWS_EC2_METADATA_DISABLED": "true",
	}
}

// AWSPod are the variables of a pod identity; the token is in the content of a file.
func (s *Server) AWSPod(tokenFile string) (env map[string]string, token string) {
	return map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": s.URL + "/pod", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": tokenFile}, s.podToken
}

var scope = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/aws4_request, SignedHeaders=.+, Signature=[0-9a-f]{64}$`)

// amazon is STS and ECR.
func (s *Server) amazon(w http.ResponseWriter, r *http.Request) {
	target := r.Header.Get("X-Amz-Target")
	if target == "" {
		s.assume(w, r)
		return
	}
	m := scope.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil || !strings.HasSuffix(target, ".GetAuthorizationToken") {
		answer(w, http.StatusBadRequest, map[string]string{"__type": "InvalidSignatureException", "message": "not signed"})
		return
	}
	for name, k := range s.keys {
		if k.id != m[1] || k.session != r.Header.Get("X-Amz-Security-Token") {
			continue
		}
		s.grant(fmt.Sprintf("%s %s %s", m[3], m[2], name))
		data := map[string]any{
			"authorizationToken": basic("AWS", s.AWSPassword), "expiresAt": float64(time.Now().Add(12 * time.Hour).Unix()),
		}
		if m[3] == "ecr-public" {
			answer(w, http.StatusOK, map[string]any{"authorizationData": data})
		} else {
			answer(w, http.StatusOK, map[string]any{"authorizationData": []any{data}})
		}
		return
	}
	// The real one repeats the request in some of its refusals.
	answer(w, http.StatusBadRequest, map[string]string{
		"__type":  "UnrecognizedClientException",
		"message": "The security token included in the request is invalid.\n" + r.Header.Get("X-Amz-Security-Token"),
	})
}

// assume is AssumeRoleWithWebIdentity.
func (s *Server) assume(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/xml")
	if r.FormValue("Action") != "AssumeRoleWithWebIdentity" || r.FormValue("WebIdentityToken") != s.Subject || r.FormValue("RoleArn") == "" {
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>`)
		return
	}
	k := s.keys["web"]
	s.grant("sts web")
	_, _ = fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>`+
		`<AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration>`+
		`</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, k.id, k.secret, k.session, inAnHour())
}

func (s *Server) pod(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != s.podToken {
		answer(w, http.StatusUnauthorized, map[string]string{"code": "AccessDenied", "message": "no"})
		return
	}
	s.grant("pod")
	s.answerKeys(w, "pod")
}

// instance is the role of a machine.
func (s *Server) instance(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("role") == "" {
		_, _ = w.Write([]byte("node"))
		return
	}
	s.grant("instance")
	s.answerKeys(w, "role")
}

func (s *Server) answerKeys(w http.ResponseWriter, name string) {
	k := s.keys[name]
	answer(w, http.StatusOK, map[string]string{
		"Code": "Success", "AccessKeyId": k.id, "SecretAccessKey": k.secret, "Token": k.session, "Expiration": inAnHour(),
	})
}

func inAnHour() string { return time.Now().UTC().Add(time.Hour).Format(time.RFC3339) }

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}
