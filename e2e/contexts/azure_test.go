// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// Azurite's account, whose key is in its documentation.
const (
	azuriteAccount = "devstoreaccount1"
	azuriteKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
	azuriteVersion = "3.35.0"
)

// azurite is the program, installed once for all runs.
func azurite(t *testing.T) string {
	t.Helper()
	dir, err := testenv.CacheDir("azurite-" + azuriteVersion)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "node_modules", ".bin", "azurite-blob")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	testenv.Need(t, "npm", "node")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "install", "--no-audit", "--no-fund", "--prefix", dir, "azurite@"+azuriteVersion)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("azurite cannot be installed: %v: %s", err, out)
	}
	return program
}

// azure serves the archives as blobs, and returns the URL of the account.
func (w *world) azure(t *testing.T) string {
	t.Helper()
	account := startAzurite(t) + "/" + azuriteAccount
	if err := w.upload(t.Context(), account, http.DefaultClient); err != nil {
		t.Fatal(err)
	}
	return account
}

// startAzurite returns the URL that it listens on.
func startAzurite(t *testing.T, args ...string) string {
	t.Helper()
	program := azurite(t)
	args = append([]string{"--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", "0", "--skipApiVersionCheck", "--disableTelemetry", "--silent=false"}, args...)
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	stop := time.AfterFunc(azuriteLimit, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	url := ""
	for lines := bufio.NewScanner(out); url == "" && lines.Scan(); {
		_, url, _ = strings.Cut(lines.Text(), "listens on ")
	}
	if url == "" {
		t.Fatalf("azurite did not start within %v", azuriteLimit)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // whatever it has to say further
	return strings.TrimSpace(url)
}

// azuriteLimit is how long it may take to start.
const azuriteLimit = time.Minute

// upload puts the archive into a private container and a public one.
func (w *world) upload(ctx context.Context, account string, client *http.Client) error {
	key, err := blob.NewSharedKeyCredential(azuriteAccount, azuriteKey)
	if err != nil {
		return err
	}
	c, err := azblob.NewClientWithSharedKeyCredential(account, key, &azblob.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: client}})
	if err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(w.objects, "context.tar.gz"))
	if err != nil {
		return err
	}
	public := container.PublicAccessTypeBlob
	for name, access := range map[string]*container.PublicAccessType{"container": nil, "public": &public} {
		if _, err := c.CreateContainer(ctx, name, &azblob.CreateContainerOptions{Access: access}); err != nil {
			return err
		}
		if _, err := c.UploadBuffer(ctx, name, "context.tar.gz", data, nil); err != nil {
			return err
		}
	}
	return nil
}

// azureEnv is how the builder reaches it.
func azureEnv(account string) map[string]string {
	return map[string]string{"AZURE_STORAGE_SERVICE_ENDPOINT": account, "AZURE_STORAGE_ACCESS_KEY": azuriteKey}
}

// TestAzure does with Azure's store what the other tests do with the others: Azurite is not everywhere.
func TestAzure(t *testing.T) {
	w := newWorld(t)
	account := w.azure(t)
	want := digest(t, build(t, w.dir, nil, ""))
	path := "/container/context.tar.gz"
	if got := digest(t, build(t, account+path, azureEnv(account), "")); got != want {
		t.Error("another image")
	}
	for i := range int64(20) {
		at := 10_000 + i*15_000
		x, through := newWire(t, account, at)
		if got := digest(t, build(t, through+path, azureEnv(through), "")); got != want || !x.broken {
			t.Errorf("cut at %d: another image, or no cut (%v)", at, x.broken)
		}
	}
	for _, tt := range []struct {
		path, key string
		code      int
		says      string
	}{
		{"/container/nothing", azuriteKey, 2, "BlobNotFound"},
		{"/nowhere/nothing", azuriteKey, 2, "ContainerNotFound"},
		{path, "aHVudGVyMg==", 6, "AuthorizationFailure"},
		{path, "", 6, "no credential was given"},
		{path, "no base64", 2, "the key of the storage account is not base64"},
	} {
		env := azureEnv(account)
		env["AZURE_STORAGE_ACCESS_KEY"] = tt.key
		if o := build(t, account+tt.path, env, ""); o.Code != tt.code || !strings.Contains(o.Cause, tt.says) {
			t.Errorf("%s: exit %d: %s", fmt.Sprint(tt), o.Code, o.Cause)
		}
	}
}

// The application that the directory knows.
const (
	azureTenant = "11111111-1111-4111-8111-111111111111"
	azureClient = "22222222-2222-4222-8222-222222222222"
)

// azureDirectory is where Azure's identities are shown their tokens: that of an application for its secret or for the token of its workload,
// and that of a machine. ends is for how long a token is good.
func azureDirectory(t *testing.T, ends time.Duration) string {
	t.Helper()
	answer := func(rw http.ResponseWriter, status int, body any) {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(status)
		_ = json.NewEncoder(rw).Encode(body)
	}
	token := func(audience string) map[string]any {
		now := time.Now()
		claims, _ := json.Marshal(map[string]any{ // a map of strings and numbers
			"aud": audience, "iss": "https://sts.windows.net/" + azureTenant + "/", "sub": azureClient, "oid": azureClient, "tid": azureTenant, "ver": "1.0",
			"iat": now.Add(-2 * time.Hour).Unix(), "nbf": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(ends).Unix(),
		})
		encode := base64.RawURLEncoding.EncodeToString
		text := encode([]byte(`{"typ":"JWT","alg":"RS256"}`)) + "." + encode(claims) + "." + encode([]byte("secret-signature"))
		// Said to be good for longer than it is: then the store has to say that it has ended.
		return map[string]any{"access_token": text, "token_type": "Bearer", "expires_in": 3600, "expires_on": fmt.Sprint(now.Add(time.Hour).Unix()), "resource": audience}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", func(rw http.ResponseWriter, r *http.Request) {
		base := "https://" + r.Host + "/" + r.PathValue("tenant")
		answer(rw, http.StatusOK, map[string]string{"issuer": base + "/v2.0", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token"})
	})
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", func(rw http.ResponseWriter, r *http.Request) {
		audience, _, _ := strings.Cut(r.FormValue("scope"), "/.default")
		known := r.PathValue("tenant") == azureTenant && r.FormValue("client_id") == azureClient
		if !known || r.FormValue("client_secret") != "secret-of-the-application" && r.FormValue("client_assertion") != "token-of-the-workload" {
			answer(rw, http.StatusUnauthorized, map[string]string{"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."})
			return
		}
		answer(rw, http.StatusOK, token(audience))
	})
	mux.HandleFunc("GET /machine", func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Identity-Header") != "secret-of-the-machine" {
			answer(rw, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
			return
		}
		answer(rw, http.StatusOK, token(r.FormValue("resource")))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// azureSAS signs the query of a blob's address.
func azureSAS(t *testing.T, key string, ends time.Duration) string {
	t.Helper()
	credential, err := blob.NewSharedKeyCredential(azuriteAccount, key)
	if err != nil {
		t.Fatal(err)
	}
	permissions := sas.BlobPermissions{Read: true}
	values := sas.BlobSignatureValues{
		Protocol: sas.ProtocolHTTPSandHTTP, StartTime: time.Now().Add(-2 * time.Hour).UTC(), ExpiryTime: time.Now().Add(ends).UTC(),
		Permissions: permissions.String(), ContainerName: "container", BlobName: "context.tar.gz",
	}
	query, err := values.SignWithSharedKey(credential)
	if err != nil {
		t.Fatal(err)
	}
	return query.Encode()
}

// TestAzureLogins reads from Azure's store by its name over TLS, with all that one can log in with. Azurite checks the signatures; of a
// token it checks the issuer, the audience and the times, but not the signature.
func TestAzureLogins(t *testing.T) {
	w := newWorld(t)
	want := digest(t, build(t, w.dir, nil, ""))
	const host = azuriteAccount + ".blob.core.windows.net"
	n := newInternet(t)
	certificate, key := n.certifyTo(t, host)
	n.addTLS(host, strings.TrimPrefix(startAzurite(t, "--oauth", "basic", "--cert", certificate, "--key", key), "https://"))
	directory := azureDirectory(t, time.Hour)
	n.add("login.microsoftonline.com", directory)
	if err := w.upload(t.Context(), "https://"+host, n.client(t)); err != nil {
		t.Fatal(err)
	}
	const (
		object = "https://" + host + "/container/context.tar.gz"
		wrong  = "aHVudGVyMg=="
	)
	application := func(pairs ...string) map[string]string {
		env := map[string]string{"AZURE_TENANT_ID": azureTenant, "AZURE_CLIENT_ID": azureClient}
		for i := 0; i < len(pairs); i += 2 {
			env[pairs[i]] = pairs[i+1]
		}
		return env
	}
	good, late, forged := azureSAS(t, azuriteKey, time.Hour), azureSAS(t, azuriteKey, -time.Hour), azureSAS(t, wrong, time.Hour)
	ended := azureDirectory(t, -time.Hour)
	logins := []login{
		{name: "key", location: object, env: map[string]string{"AZURE_STORAGE_ACCESS_KEY": azuriteKey}},
		{name: "signature", location: object, env: map[string]string{"AZURE_STORAGE_SAS_TOKEN": good}},
		{name: "signature with its question mark", location: object, env: map[string]string{"AZURE_STORAGE_SAS_TOKEN": "?" + good}},
		{name: "signature in the address", location: object + "?" + good},
		{name: "secret of an application", location: object, env: application("AZURE_CLIENT_SECRET", "secret-of-the-application")},
		{name: "workload identity", location: object, env: application("AZURE_FEDERATED_TOKEN_FILE", "HOME/token"), files: map[string]string{"token": "token-of-the-workload"}},
		{name: "managed identity", location: object, env: map[string]string{"IDENTITY_ENDPOINT": directory + "/machine", "IDENTITY_HEADER": "secret-of-the-machine"}},
		{name: "public, nobody", location: "https://" + host + "/public/context.tar.gz"},

		{name: "nobody", location: object, code: 6, says: "no credential was given"},
		{name: "wrong key", location: object, env: map[string]string{"AZURE_STORAGE_ACCESS_KEY": wrong}, code: 6, says: "InvalidAuthenticationInfo"},
		{name: "signature that has ended", location: object, env: map[string]string{"AZURE_STORAGE_SAS_TOKEN": late}, code: 6, says: "AuthorizationFailure"},
		{name: "signature of another key", location: object, env: map[string]string{"AZURE_STORAGE_SAS_TOKEN": forged}, code: 6, says: "AuthorizationFailure"},
		{name: "wrong secret", location: object, env: application("AZURE_CLIENT_SECRET", "secret-of-nobody"), code: 6, says: "AADSTS7000215"},
		{name: "token that has ended", location: object, env: map[string]string{"IDENTITY_ENDPOINT": ended + "/machine", "IDENTITY_HEADER": "secret-of-the-machine"}, code: 6, says: "403"},
		{name: "no blob", location: "https://" + host + "/container/nothing", env: map[string]string{"AZURE_STORAGE_ACCESS_KEY": azuriteKey}, code: 2, says: "BlobNotFound"},
	}
	secrets := []string{azuriteKey, wrong, "secret-of-", "token-of-", base64.RawURLEncoding.EncodeToString([]byte("secret-signature"))}
	for _, query := range []string{good, late, forged} {
		for item := range strings.SplitSeq(query, "&") {
			if signature, ok := strings.CutPrefix(item, "sig="); ok {
				secrets = append(secrets, signature)
			}
		}
	}
	for _, l := range logins {
		t.Run(l.name, func(t *testing.T) { l.try(t, want, secrets, n.env()) })
	}
}
