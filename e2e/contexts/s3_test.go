// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// awsRegion is that of the store; its own names are below awsDomain.
const (
	awsRegion = "eu-central-1"
	awsDomain = "s3." + awsRegion + ".amazonaws.com"
)

// awsKey is what the store knows somebody by.
type awsKey struct {
	Access, Secret, Session string
	Ends                    time.Time
}

// The owner, somebody with a session, and one whose session has ended.
func awsKeys() (owner, guest, late awsKey) {
	return awsKey{Access: "AKIAOWNER", Secret: "secret-of-the-owner"},
		awsKey{Access: "ASIAGUEST", Secret: "secret-of-the-guest", Session: "session-of-the-guest", Ends: time.Now().Add(time.Hour)},
		awsKey{Access: "ASIALATE", Secret: "secret-of-the-late", Session: "session-of-the-late", Ends: time.Now().Add(-time.Minute)}
}

func (k awsKey) env() map[string]string {
	return map[string]string{"AWS_REGION": awsRegion, "AWS_ACCESS_KEY_ID": k.Access, "AWS_SECRET_ACCESS_KEY": k.Secret, "AWS_SESSION_TOKEN": k.Session}
}

// awsEnv leads the builder to the store without its name.
func awsEnv(url string) map[string]string {
	return map[string]string{"S3_ENDPOINT": url, "S3_FORCE_PATH_STYLE": "true"}
}

// awsClient is the owner's.
func awsClient(url string) *s3.Client {
	owner, _, _ := awsKeys()
	return s3.New(s3.Options{
		Region: awsRegion, BaseEndpoint: &url, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(owner.Access, owner.Secret, ""),
	})
}

const publicPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::public/*"}]}`

// fillS3 uploads the archives to the buckets "bucket" and "public", and one in parts, which has other checksums.
func (w *world) fillS3(ctx context.Context, url string) error {
	c := awsClient(url)
	files, err := os.ReadDir(w.objects)
	if err != nil {
		return err
	}
	for _, bucket := range []string{"bucket", "public"} {
		if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket, CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: awsRegion}}); err != nil {
			return err
		}
		for _, f := range files {
			if err := w.putS3(ctx, c, bucket, f.Name(), f.Name()); err != nil {
				return err
			}
		}
	}
	if _, err := c.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: aws.String("public"), Policy: aws.String(publicPolicy)}); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(w.objects, "context.tar"))
	if err != nil {
		return err
	}
	// No part but the last may be smaller.
	return putParts(ctx, c, "parts.tar", data, bytes.Repeat([]byte{0}, 5<<20-len(data)), []byte{0})
}

func (w *world) putS3(ctx context.Context, c *s3.Client, bucket, key, file string) error {
	data, err := os.ReadFile(filepath.Join(w.objects, file))
	if err == nil {
		_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(data)})
	}
	return err
}

// putParts uploads an object in two parts: all of the pieces but the last, and that.
func putParts(ctx context.Context, c *s3.Client, key string, pieces ...[]byte) error {
	bucket := aws.String("bucket")
	upload, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: &key, ChecksumAlgorithm: types.ChecksumAlgorithmSha256})
	if err != nil {
		return err
	}
	last := len(pieces) - 1
	var done []types.CompletedPart
	for i, part := range [][]byte{bytes.Join(pieces[:last], nil), pieces[last]} {
		number := aws.Int32(int32(i + 1))
		out, err := c.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: bucket, Key: &key, UploadId: upload.UploadId, PartNumber: number, Body: bytes.NewReader(part), ChecksumAlgorithm: types.ChecksumAlgorithmSha256,
		})
		if err != nil {
			return err
		}
		done = append(done, types.CompletedPart{ETag: out.ETag, PartNumber: number, ChecksumSHA256: out.ChecksumSHA256})
	}
	_, err = c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: &key, UploadId: upload.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: done}})
	return err
}

// awsServices are those that give keys: STS for the token of a workload, and the agent of a pod.
func awsServices(t *testing.T, give awsKey) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		ends := give.Ends.UTC().Format(time.RFC3339)
		switch {
		case r.URL.Path == "/pod" && r.Header.Get("Authorization") == "token-of-the-pod":
			rw.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(rw).Encode(map[string]string{"AccessKeyId": give.Access, "SecretAccessKey": give.Secret, "Token": give.Session, "Expiration": ends})
		case r.FormValue("Action") == "AssumeRoleWithWebIdentity" && r.FormValue("WebIdentityToken") == "token-of-the-workload" && r.FormValue("RoleArn") == "arn:aws:iam::123456789012:role/build":
			rw.Header().Set("Content-Type", "text/xml")
			_, _ = fmt.Fprintf(rw, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%s</AccessKeyId>`+
				`<SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
				give.Access, give.Secret, give.Session, ends)
		default:
			rw.Header().Set("Content-Type", "text/xml")
			rw.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprint(rw, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>`)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestAmazonLogins reads from S3 by the names that it has, with all that the SDK knows to log in with. The store checks every signature.
func TestAmazonLogins(t *testing.T) {
	w := newWorld(t)
	want := digest(t, build(t, w.dir, nil, ""))
	store, _ := w.stores(t)
	needStores(t)
	owner, guest, late := awsKeys()
	services := awsServices(t, guest)
	n := newInternet(t)
	n.add("*."+awsDomain, store)
	n.add(awsDomain, store)
	n.add("s3.us-east-1.amazonaws.com", store)
	n.add("sts."+awsRegion+".amazonaws.com", services)
	const object = "s3://bucket/context.tar.gz"
	none := map[string]string{"AWS_REGION": awsRegion, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
	with := func(base map[string]string, pairs ...string) map[string]string {
		all := map[string]string{}
		for k, v := range base {
			all[k] = v
		}
		for i := 0; i < len(pairs); i += 2 {
			all[pairs[i]] = pairs[i+1]
		}
		return all
	}
	profile := fmt.Sprintf("[default]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = x\n\n[ci]\naws_access_key_id = %s\naws_secret_access_key = %s\n", owner.Access, owner.Secret)
	role := []string{"AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/build", "AWS_WEB_IDENTITY_TOKEN_FILE", "HOME/token"}
	wrong := owner
	wrong.Secret = "secret-of-nobody"
	unknown := awsKey{Access: "AKIANOBODY", Secret: "x"}
	forged := guest
	forged.Session = "session-of-nobody"
	bare := guest
	bare.Session = ""
	logins := []login{
		{name: "keys", location: object, env: owner.env()},
		{name: "session", location: object, env: guest.env()},
		{name: "profile", location: object, env: with(none, "AWS_PROFILE", "ci", "AWS_REGION", ""), files: map[string]string{
			".aws/credentials": profile, ".aws/config": "[profile ci]\nregion = " + awsRegion + "\n",
		}},
		{name: "profile in other files", location: object, env: with(none, "AWS_PROFILE", "ci", "AWS_REGION", "", "AWS_SHARED_CREDENTIALS_FILE", "HOME/c", "AWS_CONFIG_FILE", "HOME/d"), files: map[string]string{
			"c": profile, "d": "[profile ci]\nregion = " + awsRegion + "\n",
		}},
		{name: "web identity", location: object, env: with(none, role...), files: map[string]string{"token": "token-of-the-workload"}},
		{name: "web identity, STS elsewhere", location: object, env: with(none, append(role, "AWS_ENDPOINT_URL_STS", services)...), files: map[string]string{"token": "token-of-the-workload"}},
		{
			name: "pod identity", location: object, env: with(none, "AWS_CONTAINER_CREDENTIALS_FULL_URI", services+"/pod", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "HOME/token"),
			files: map[string]string{"token": "token-of-the-pod"},
		},
		{name: "path style", location: object, env: with(owner.env(), "S3_ENDPOINT", "https://"+awsDomain, "S3_FORCE_PATH_STYLE", "true")},
		{name: "virtual host style at an endpoint", location: object, env: with(owner.env(), "S3_ENDPOINT", "https://"+awsDomain)},
		{name: "the SDK's endpoint", location: object, env: with(owner.env(), "AWS_ENDPOINT_URL_S3", store)},
		{name: "uploaded in parts", location: "s3://bucket/parts.tar", env: owner.env()},
		{name: "the object that is meant without a name", location: "s3://bucket", env: owner.env()},
		{name: "a public bucket, nobody", location: "s3://public/context.tar.gz", env: none},
		{name: "a public bucket, somebody", location: "s3://public/context.tar.gz", env: guest.env()},

		{name: "nobody", location: object, env: none, code: 6, says: "AccessDenied"},
		{name: "wrong secret", location: object, env: wrong.env(), code: 6, says: "SignatureDoesNotMatch"},
		{name: "unknown key", location: object, env: unknown.env(), code: 6, says: "InvalidAccessKeyId"},
		{name: "session that has ended", location: object, env: late.env(), code: 6, says: "InvalidToken"},
		{name: "another session's token", location: object, env: forged.env(), code: 6, says: "InvalidToken"},
		{name: "session without its token", location: object, env: bare.env(), code: 6, says: "InvalidToken"},
		{name: "another region", location: object, env: with(owner.env(), "AWS_REGION", "us-east-1", "S3_ENDPOINT", "https://"+awsDomain), code: 6, says: "AuthorizationHeaderMalformed"},
		{name: "no such profile", location: object, env: with(none, "AWS_PROFILE", "nothing"), files: map[string]string{".aws/credentials": profile}, code: 6, says: "nothing"},
		{name: "no token of the workload", location: object, env: with(none, role...), code: 6, says: "token"},
		{name: "a workload that STS does not know", location: object, env: with(none, role...), files: map[string]string{"token": "token-of-nobody"}, code: 6, says: "AccessDenied"},
		{name: "no object", location: "s3://bucket/nothing", env: owner.env(), code: 2, says: "NoSuchKey"},
		{name: "no bucket", location: "s3://nowhere/nothing", env: guest.env(), code: 2, says: "NoSuchBucket"},
	}
	secrets := []string{owner.Secret, guest.Secret, guest.Session, late.Secret, late.Session, wrong.Secret, forged.Session, "token-of-"}
	for _, l := range logins {
		t.Run(l.name, func(t *testing.T) { l.try(t, want, secrets, n.env()) })
	}
	if got := strings.Join(n.names(), " "); got != "bucket."+awsDomain+" nowhere."+awsDomain+" public."+awsDomain+" "+awsDomain+" sts."+awsRegion+".amazonaws.com" {
		t.Errorf("asked for: %s", got)
	}
}

// clouds gives both stores the names that they have.
func (w *world) clouds(t *testing.T, s3, google string) *internet {
	t.Helper()
	n := newInternet(t)
	n.add("*."+awsDomain, s3)
	n.add("storage.googleapis.com", google)
	return n
}

// TestAmazonReplaced uploads another object under the name of the one that is being read.
func TestAmazonReplaced(t *testing.T) {
	w := newWorld(t)
	store, _ := w.stores(t)
	needStores(t)
	x, through := newWire(t, store, 100_000)
	x.onBreak(func() {
		if err := w.putS3(context.Background(), awsClient(store), "bucket", "context.tar.gz", "context.tar.zst"); err != nil {
			t.Error(err)
		}
	})
	o := build(t, "s3://bucket/context.tar.gz", awsEnv(through), "")
	if o.Code != 5 || !strings.Contains(o.Cause, "changed while it was read") {
		t.Errorf("exit %d: %s", o.Code, o.Cause)
	}
}

// startKeys writes the keys for the store.
func startKeys(t *testing.T) string {
	t.Helper()
	owner, guest, late := awsKeys()
	text, err := json.Marshal([]awsKey{owner, guest, late})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(testenv.Dir(t), "keys.json")
	mustWrite(t, name, string(text))
	return name
}
