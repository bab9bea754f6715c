// SPDX-License-Identifier: Apache-2.0

package dockerfile

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

func upper(word string) (string, error) {
	if word == "$bad" {
		return "", errors.New("cannot expand")
	}
	return strings.ReplaceAll(word, "$v", "value"), nil
}

// TestMounts holds the words that people search for.
func TestMounts(t *testing.T) {
	for _, tc := range []struct{ name, flag, want, err string }{
		{name: "default type", flag: "target=/m,from=s", want: "bind /m s"},
		{name: "variables", flag: "type=cache,target=/$v", want: "cache /value "},
		{name: "mistyped key", flag: "typ=bind,target=/m", err: "unexpected key 'typ' in 'typ=bind' (did you mean type?)"},
		{name: "mistyped type", flag: "type=tmp,target=/m", err: `unsupported mount type "tmp" (did you mean tmpfs?)`},
		{name: "near type", flag: "type=bnd,target=/m", err: `unsupported mount type "bnd" (did you mean bind?)`},
		{name: "required before its type", flag: "required,type=secret,id=a", err: "unexpected key 'required' for mount type 'bind'"},
		{name: "required after its type", flag: "type=secret,id=a,required", want: "secret  "},
		{name: "size of a bind", flag: "size=1,target=/m", err: "unexpected key 'size' for mount type 'bind'"},
		{name: "mode of a bind", flag: "target=/m,mode=1", err: `mode not allowed for "bind" type mounts`},
		{name: "no value", flag: "target", err: "invalid field 'target' must be a key=value pair"},
		{name: "secret of nothing", flag: "type=secret", err: "invalid secret mount. one of source, target required"},
		{name: "bad expansion", flag: "target=$bad", err: "cannot expand"},
		{name: "sharing", flag: "type=cache,target=/c,sharing=lokced", err: `unsupported sharing value "lokced" (did you mean locked?)`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mounts, err := Mounts([]string{"--mount=" + tc.flag, "--network=none"}, upper)
			if tc.err != "" {
				if err == nil || err.Error() != tc.err {
					t.Errorf("got %v, want %s", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m := mounts[0]
			if diff := cmp.Diff(tc.want, string(m.Type)+" "+m.Target+" "+m.From); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestFlagsStayAsWritten expands the mounts of a file twice, differently.
func TestFlagsStayAsWritten(t *testing.T) {
	file, err := Parse("Dockerfile", []byte("ARG a\nFROM x\n# c\nRUN --mount=target=$v \\\n  a\nCOPY --from=x a b\nRUN b\nRUN --network=none --mount=type=tmpfs,dst=/t c\n"))
	if err != nil {
		t.Fatal(err)
	}
	var flags []string
	for _, cmd := range file.Stages[0].Commands {
		flags = append(flags, strings.Join(file.Flags(cmd), " "))
	}
	want := []string{"--mount=target=$v", "", "", "--network=none --mount=type=tmpfs,dst=/t"}
	if diff := cmp.Diff(want, flags); diff != "" {
		t.Error(diff)
	}
	first := file.Stages[0].Commands[0]
	for _, value := range []string{"/1", "/2"} {
		mounts, err := Mounts(file.Flags(first), func(string) (string, error) { return value, nil })
		if err != nil || mounts[0].Target != value {
			t.Errorf("got %v (%v), want %s", mounts, err, value)
		}
	}
	if run, ok := first.(*instructions.RunCommand); !ok || instructions.GetMounts(run)[0].Target != "" {
		t.Error("the file's own mount was expanded")
	}
}

func FuzzMounts(f *testing.F) {
	for _, seed := range []string{
		"type=cache,id=$v,target=/c,sharing=locked,mode=0770,uid=1", "type=secret,id=s,env=E,required", "type=ssh,required=true",
		"type=tmpfs,size=1g,dst=/t", `"type=bind","from=a,b",src=/x,rw`, "\"", "=,=", "from=$",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, flag string) {
		mounts, err := Mounts([]string{"--mount=" + flag}, upper)
		if err == nil && len(mounts) != 1 {
			t.Errorf("%d mounts", len(mounts))
		}
	})
}
