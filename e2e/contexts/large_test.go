// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// TestLarge builds from an archive of 2 GiB of which 1 MiB is needed: from a web server that makes it as it goes, in every compression, where the
// Dockerfile comes first and where it comes last; and from S3.
func TestLarge(t *testing.T) {
	for _, tt := range []struct {
		name, pack string
		last, slow bool
	}{
		{name: "plain"},
		{name: "plain, the Dockerfile last", last: true},
		{name: "gzip", pack: "gzip -1"},
		{name: "gzip, the Dockerfile last", pack: "gzip -1", last: true, slow: true},
		{name: "zstd", pack: "zstd -1"},
		{name: "xz", pack: "xz -0", slow: true},
		{name: "bzip2", pack: "bzip2 -1", slow: true},
	} {
		if tt.slow && !*full {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("ETag", `"1"`)
				_ = writeLarge(rw, tt.last, packer(r.Context(), tt.pack)) // the builder may stop listening
			}))
			defer s.Close()
			frugal(t, map[string]string{"KANIKO_CONTEXT": s.URL + "/large.tar"})
		})
	}
	if !*full { // it needs 6 GiB of disk
		return
	}
	t.Run("S3", func(t *testing.T) {
		w := newWorld(t)
		store, _ := w.stores(t)
		needStores(t)
		if err := uploadLarge(t.Context(), awsClient(store), filepath.Join(testenv.Dir(t), "large")); err != nil {
			t.Fatal(err)
		}
		env := awsEnv(store)
		owner, _, _ := awsKeys()
		for k, v := range owner.env() {
			env[k] = v
		}
		env["KANIKO_CONTEXT"] = "s3://bucket/large.tar.gz"
		frugal(t, env)
	})
}

// largeLimit is how long a build from 2 GiB may take; bzip2 alone needs minutes.
const largeLimit = 10 * time.Minute

// frugal builds, and says and limits what that takes.
func frugal(t *testing.T, env map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), largeLimit)
	defer cancel()
	dir := testenv.Dir(t)
	cmd := exec.CommandContext(ctx, binary)
	var log strings.Builder
	cmd.Stderr, cmd.Dir = &log, dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "KANIKO_NO_PUSH=true", "KANIKO_DIR=" + filepath.Join(dir, "work"), "KANIKO_ISOLATION=auto"}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done, memory := make(chan struct{}), make(chan int64)
	go func() { memory <- peak(cmd.Process.Pid, done) }()
	err := cmd.Wait()
	close(done)
	most := <-memory
	if err != nil {
		t.Fatalf("%v: %s", err, log.String())
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal("no usage")
	}
	t.Logf("%d MiB of memory at most, %d MiB written, %.1f s of processor time in %.1f s; %s", most>>10, usage.Oublock>>11,
		(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), time.Since(start).Seconds(), keptLine(log.String()))
	if most == 0 || most > 100<<10 {
		t.Errorf("%d KiB of memory", most)
	}
}

// peak is the most memory, in KiB, that a process or one that it started has had, as long as they last. What wait says of it is no less than
// what the test itself has had, which started it.
func peak(pid int, done <-chan struct{}) int64 {
	most := int64(0)
	for {
		for _, p := range append(children(pid), pid) {
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p)) // it may have ended
			if _, after, ok := strings.Cut(string(status), "VmHWM:"); ok {
				var n int64
				if _, err := fmt.Sscan(after, &n); err == nil && !isTest(p) {
					most = max(most, n)
				}
			}
		}
		select {
		case <-done:
			return most
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// isTest tells a process that is not yet the builder: between its fork and its exec it has the memory of the test.
func isTest(pid int) bool {
	own, _ := os.Readlink("/proc/self/exe")
	name, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return name == own
}

func children(pid int) []int {
	var all []int
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range files {
		text, _ := os.ReadFile(name)
		for word := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(all, child)
				all = append(all, children(child)...)
			}
		}
	}
	return all
}

func keptLine(log string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "passed over") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// packer compresses a piece of an archive with a program, "" for none. The pieces of an archive may be compressed one by one: what
// decompresses goes on with the next.
func packer(ctx context.Context, command string) func([]byte) ([]byte, error) {
	return func(data []byte) ([]byte, error) {
		if command == "" {
			return data, nil
		}
		args := strings.Fields(command)
		cmd := exec.CommandContext(ctx, args[0], append(args[1:], "-c")...)
		cmd.Stdin = bytes.NewReader(data)
		return cmd.Output()
	}
}

// writeLarge writes 2 GiB in files of 16 MiB, one of 1 MiB, and a Dockerfile that names that.
func writeLarge(w io.Writer, last bool, pack func([]byte) ([]byte, error)) error {
	random := rand.NewChaCha8([32]byte{})
	data := make([]byte, 16<<20)
	_, _ = random.Read(data) // never fails
	unneeded, err := pack(data)
	if err != nil {
		return err
	}
	needed, err := pack(data[:1<<20])
	if err != nil {
		return err
	}
	text := []byte("FROM scratch\nCOPY needed /\n")
	put := func(name string, size int, packed []byte) error {
		var header bytes.Buffer
		if err := tar.NewWriter(&header).WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(size)}); err != nil {
			return err
		}
		first, err := pack(header.Bytes())
		if err != nil {
			return err
		}
		_, err = w.Write(append(first, packed...))
		return err
	}
	dockerfile := func() error {
		packed, err := pack(append(text, make([]byte, 512-len(text))...))
		if err != nil {
			return err
		}
		return put("Dockerfile", len(text), packed)
	}
	if !last {
		if err := dockerfile(); err != nil {
			return err
		}
	}
	for i := range 128 {
		if err := put("unneeded/"+string(rune('a'+i%26))+strings.Repeat("x", i/26), len(data), unneeded); err != nil {
			return err
		}
		if i == 64 {
			if err := put("needed", 1<<20, needed); err != nil {
				return err
			}
		}
	}
	if last {
		if err := dockerfile(); err != nil {
			return err
		}
	}
	end, err := pack(make([]byte, 1024))
	if err == nil {
		_, err = w.Write(end)
	}
	return err
}

// uploadLarge uploads the archive in parts.
func uploadLarge(ctx context.Context, c *s3.Client, name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := writeLarge(f, false, packer(ctx, "gzip -1")); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	bucket, key := aws.String("bucket"), aws.String("large.tar.gz")
	upload, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key})
	if err != nil {
		return err
	}
	const part = 512 << 20
	var done []types.CompletedPart
	for off := int64(0); off < size; off += part {
		number := aws.Int32(int32(off/part) + 1)
		out, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: upload.UploadId, PartNumber: number, Body: io.NewSectionReader(f, off, min(part, size-off))})
		if err != nil {
			return fmt.Errorf("part %d: %w", *number, err)
		}
		done = append(done, types.CompletedPart{ETag: out.ETag, PartNumber: number, ChecksumCRC32: out.ChecksumCRC32, ChecksumCRC64NVME: out.ChecksumCRC64NVME})
	}
	_, err = c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: upload.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: done}})
	return err
}
