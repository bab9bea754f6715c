// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// plainSecret is a Secret that a comparison shows whole.
type plainSecret Secret

func plainSecrets(list Secrets) []plainSecret {
	var out []plainSecret
	for _, s := range list {
		out = append(out, plainSecret(s))
	}
	return out
}

// TestSecrets follows docker build --secret: both keys for the file, quoted
// fields, and an id alone.
func TestSecrets(t *testing.T) {
	c := load(t, map[string]string{
		"KANIKO_MODE": "check",
		"TOKEN":       "hunter2\n",
		"NPM_TOKEN":   "from env",
		"UNSET":       "",
		"KANIKO_SECRET": strings.Join([]string{
			"id=file,src=/run/secrets/a b",
			"ID=relative, Source=certs/key.pem",
			`id=comma,"src=/a,b"`,
			"type=file,id=typed,src=f=g",
			"id=env,env=TOKEN",
			"type=env,id=old,src=TOKEN",
			"id=NPM_TOKEN",
			"id=some/file",
			"id=UNSET,env=UNSET",
			"id=UNSET2,type=env",
			"id=TOKEN,type=file",
		}, "\n"),
	})
	want := []plainSecret{
		{ID: "file", File: "/run/secrets/a b"},
		{ID: "relative", File: "certs/key.pem"},
		{ID: "comma", File: "/a,b"},
		{ID: "typed", File: "f=g"},
		{ID: "env", Env: "TOKEN", Value: []byte("hunter2\n")},
		{ID: "old", Env: "TOKEN", Value: []byte("hunter2\n")},
		{ID: "NPM_TOKEN", Env: "NPM_TOKEN", Value: []byte("from env")},
		{ID: "some/file", File: "some/file"},
		{ID: "UNSET", Env: "UNSET"},
		{ID: "UNSET2", Env: "UNSET2"},
		{ID: "TOKEN", File: "TOKEN"},
	}
	if diff := cmp.Diff(want, plainSecrets(c.Secret)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSecretValuesAreNotShown prints a configuration in every way in which a
// log could.
func TestSecretValuesAreNotShown(t *testing.T) {
	c := load(t, map[string]string{"KANIKO_MODE": "check", "KANIKO_SECRET": "id=TOKEN", "TOKEN": "hunter2"})
	if string(c.Secret[0].Value) != "hunter2" {
		t.Fatalf("the secret was not read: %q", c.Secret[0].Value)
	}
	encoded, err := json.Marshal(c.Secret)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{
		"json": string(encoded), "String": c.Secret[0].String(),
		"%v": fmt.Sprintf("%v", c), "%+v": fmt.Sprintf("%+v", c), "%#v": fmt.Sprintf("%#v", c.Run),
		"bytes": fmt.Sprintf("%v %x", c.Run, c.Secret),
	}
	for form, text := range shown {
		// As text, as bytes in decimal, and in hexadecimal.
		for _, leak := range []string{"hunter2", "104 117 110", "0x68, 0x75", "68756e"} {
			if strings.Contains(text, leak) {
				t.Errorf("%s shows the secret: %s", form, text)
			}
		}
		if !strings.Contains(text, "TOKEN") && form != "bytes" {
			t.Errorf("%s does not say which secret: %s", form, text)
		}
	}
}

func TestAgents(t *testing.T) {
	c := load(t, map[string]string{
		"KANIKO_MODE": "check", "SSH_AUTH_SOCK": "/run/agent",
		"KANIKO_SSH": "default\nwork=/run/other.sock\ndeploy=/keys/a,keys/b\nempty=",
	})
	want := Agents{
		{ID: "default", Paths: []string{"/run/agent"}},
		{ID: "work", Paths: []string{"/run/other.sock"}},
		{ID: "deploy", Paths: []string{"/keys/a", "keys/b"}},
		{ID: "empty", Paths: []string{"/run/agent"}},
	}
	if diff := cmp.Diff(want, c.SSH); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSecretProblems holds that what was written is never repeated: it may be
// the secret itself.
func TestSecretProblems(t *testing.T) {
	tests := []struct {
		name, variable string
		items          []string
		want           string
	}{
		{
			"secret", "KANIKO_SECRET",
			[]string{
				"hunter2", "hunter2=hunter2", "id=x", "id=x,src=hunter2", "src=hunter2", "id=a,src=hunter2,env=hunter2", "id=b,src=", "id=c,src=hunter2,source=hunter2",
				"id=d,type=hunter2", "id=e,type=file,env=hunter2", `id=f,"src=hunter2`, "id=g,hunter2", "id=,src=hunter2",
			},
			`KANIKO_SECRET: item 1: a part of it is none of id, src, source, env and type; write id=ID,src=FILE or id=ID,env=VARIABLE
KANIKO_SECRET: item 2: a part of it is none of id, src, source, env and type; write id=ID,src=FILE or id=ID,env=VARIABLE
KANIKO_SECRET: item 4: an earlier item has the same id
KANIKO_SECRET: item 5: no id; write id=ID,src=FILE or id=ID,env=VARIABLE
KANIKO_SECRET: item 6: it has both src and env; give one of them
KANIKO_SECRET: item 7: src has no value
KANIKO_SECRET: item 8: src is there twice
KANIKO_SECRET: item 9: its type is not known; there are: file, env
KANIKO_SECRET: item 10: type=file does not go with env; give src
KANIKO_SECRET: item 11: a quote is open or out of place; write id=ID,src=FILE or id=ID,env=VARIABLE
KANIKO_SECRET: item 12: a part of it is none of id, src, source, env and type; write id=ID,src=FILE or id=ID,env=VARIABLE
KANIKO_SECRET: item 13: id has no value`,
		},
		{
			"ssh", "KANIKO_SSH",
			[]string{"=hunter2", "a=hunter2,,b", "b=raw=true,hunter2", "c=hunter2", "c=hunter2"},
			`KANIKO_SSH: item 1: no id; write default=SOCKET or default=KEY
KANIKO_SSH: item 2: an empty path; write ID=SOCKET or ID=KEY,KEY
KANIKO_SSH: item 3: raw is not supported: an agent is asked for public keys and signatures, nothing else
KANIKO_SSH: item 5: an earlier item has the same id; several keys of one id are joined by commas`,
		},
		{
			"no agent", "KANIKO_SSH",
			[]string{"a=/s", "hunter2"},
			`KANIKO_SSH: item 2: an id alone is the agent of SSH_AUTH_SOCK, which is not set; write ID=SOCKET or ID=KEY`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			setEnv(t, map[string]string{"KANIKO_MODE": "check", tt.variable: strings.Join(tt.items, "\n")})
			_, err := Load()
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(strings.Split(tt.want, "\n"), strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzSecrets holds that a secret which was accepted has an id and comes from
// one place, and that an error repeats nothing of what was written.
func FuzzSecrets(f *testing.F) {
	for _, seed := range []string{"id=a,src=b", `id=a,"src=b,c"`, "id=a,type=env", "id=a\nid=b,env=C", `["id=a"]`, `"`, "id=a,,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		const marker = "hunter2hunter2"
		var s Secrets
		if err := s.Decode(value + marker); err != nil && strings.Contains(err.Error(), marker) {
			t.Errorf("%q: the error repeats it: %v", value, err)
		}
		if s.Decode(value) != nil {
			return
		}
		s.resolve()
		for _, secret := range s {
			if secret.ID == "" || (secret.File == "") == (secret.Env == "") {
				t.Errorf("%q: %#v", value, plainSecret(secret))
			}
		}
	})
}
