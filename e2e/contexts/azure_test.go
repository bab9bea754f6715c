// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"

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
	program := azurite(t)
	cmd := exec.CommandContext(t.Context(), program, "--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", "0", "--skipApiVersionCheck", "--disableTelemetry", "--silent=false")
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
	account := ""
	for lines := bufio.NewScanner(out); account == "" && lines.Scan(); {
		if _, url, ok := strings.Cut(lines.Text(), "listens on "); ok {
			account = strings.TrimSpace(url) + "/" + azuriteAccount
		}
	}
	if account == "" {
		t.Fatal("azurite did not start")
	}
	go func() { // whatever it has to say further
		for s := bufio.NewScanner(out); s.Scan(); {
		}
	}()
	if err := w.upload(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	return account
}

func (w *world) upload(ctx context.Context, account string) error {
	key, err := blob.NewSharedKeyCredential(azuriteAccount, azuriteKey)
	if err != nil {
		return err
	}
	c, err := azblob.NewClientWithSharedKeyCredential(account, key, nil)
	if err != nil {
		return err
	}
	if _, err := c.CreateContainer(ctx, "container", nil); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(w.objects, "context.tar.gz"))
	if err == nil {
		_, err = c.UploadBuffer(ctx, "container", "context.tar.gz", data, nil)
	}
	return err
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
	} {
		env := azureEnv(account)
		env["AZURE_STORAGE_ACCESS_KEY"] = tt.key
		if o := build(t, account+tt.path, env, ""); o.Code != tt.code || !strings.Contains(o.Cause, tt.says) {
			t.Errorf("%s: exit %d: %s", fmt.Sprint(tt), o.Code, o.Cause)
		}
	}
}
