// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
	"github.com/versity/versitygw/s3api"
)

// The region of the gateway, and the name below which its buckets have names of their own.
const (
	region = "eu-central-1"
	domain = "s3." + region + ".amazonaws.com"
)

// key is one of those that the gateway accepts. Those with a session are good until it ends.
type key struct {
	Access, Secret, Session string
	Ends                    time.Time
}

// serveS3 starts the gateway and returns its address. The first of the keys is the owner's.
func serveS3(ctx context.Context, cancel context.CancelCauseFunc, dir, file string) (net.Addr, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	known := keys{}
	if err := json.Unmarshal(text, &known.list); err != nil {
		return nil, err
	}
	data, attributes, socket := filepath.Join(dir, "data"), filepath.Join(dir, "attributes"), filepath.Join(dir, "socket")
	for _, d := range []string{data, attributes} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	// Beside the files, for not every file system has room for attributes.
	side, err := meta.NewSideCar(attributes)
	if err != nil {
		return nil, err
	}
	backend, err := posix.New(data, side, posix.PosixOpts{SideCarDir: attributes})
	if err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go func() {
		cancel(embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
			RootUserAccess: known.list[0].Access, RootUserSecret: known.list[0].Secret, IAMService: known, IAMCacheDisable: true,
			Region: region, VirtualDomain: domain, Ports: []string{socket},
			MaxConnections: 1000, MaxRequests: 1000, MultipartMaxParts: 10000, KeepAlive: true, Quiet: true,
			S3Options: []s3api.Option{s3api.WithOnListen(func() { close(ready) })},
		}))
	}()
	select {
	case <-ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return forward(socket)
}

// forward gives a socket a port: which one only the kernel can say, and the gateway does not tell.
func forward(socket string) (net.Addr, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go join(c, socket)
		}
	}()
	return l.Addr(), nil
}

func join(c net.Conn, socket string) {
	defer func() { _ = c.Close() }()
	s, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer func() { _ = s.Close() }()
	go func() {
		_, _ = io.Copy(s, c)
		_ = s.Close()
	}()
	_, _ = io.Copy(c, s)
}

// keys are what the gateway asks who somebody is. It checks the signatures itself.
type keys struct{ list []key }

var errFixed = errors.New("the keys cannot be changed")

// DeriveSigningKey implements auth.SigningKeyProvider.
func (k keys) DeriveSigningKey(access, session, date, region, service string) ([]byte, auth.Account, error) {
	for _, own := range k.list {
		if own.Access != access {
			continue
		}
		if own.Session != session || session != "" && !time.Now().Before(own.Ends) {
			return nil, auth.Account{}, auth.ErrInvalidSessionToken
		}
		derived := []byte("AWS4" + own.Secret)
		for _, part := range []string{date, region, service, "aws4_request"} {
			h := hmac.New(sha256.New, derived)
			h.Write([]byte(part))
			derived = h.Sum(nil)
		}
		return derived, auth.Account{Access: access, Role: auth.RoleAdmin, SessionToken: session, IsSession: session != ""}, nil
	}
	return nil, auth.Account{}, auth.ErrNoSuchUser
}

// GetUserAccount implements auth.IAMService.
func (k keys) GetUserAccount(access string) (auth.Account, error) {
	for _, own := range k.list {
		if own.Access == access {
			return auth.Account{Access: access, Role: auth.RoleAdmin}, nil
		}
	}
	return auth.Account{}, auth.ErrNoSuchUser
}

// ResolveAccounts implements auth.IAMService: those that do not exist.
func (k keys) ResolveAccounts(accesses []string) ([]string, error) {
	missing := []string{}
	for _, access := range accesses {
		if _, err := k.GetUserAccount(access); err != nil {
			missing = append(missing, access)
		}
	}
	return missing, nil
}

func (keys) CreateAccount(auth.Account) error                  { return errFixed }
func (keys) UpdateUserAccount(string, auth.MutableProps) error { return errFixed }
func (keys) DeleteUserAccount(string) error                    { return errFixed }
func (keys) ListUserAccounts() ([]auth.Account, error)         { return nil, errFixed }
func (keys) Shutdown() error                                   { return nil }
