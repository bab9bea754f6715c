// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

// neverInEnv are ARGs that talk to the builder and that no process sees.
func neverInEnv(key string) bool {
	return key == "BUILDKIT_SBOM_SCAN_CONTEXT" || key == "BUILDKIT_SBOM_SCAN_STAGE"
}

// readGlobalArgs makes the scope of FROM lines: the platform arguments, then
// the ARGs before the first FROM. A build argument wins over a default.
func (p *planner) readGlobalArgs() error {
	if _, given := p.buildArgs[epochArg]; !given && p.req.Epoch != nil {
		p.buildArgs[epochArg] = strconv.FormatInt(p.req.Epoch.Unix(), 10)
	}
	p.proxies = proxyEnv(p.buildArgs)
	p.global = &dockerfile.Env{}
	p.setPlatformArgs()
	p.lintDefaults()
	for _, cmd := range p.file.MetaArgs {
		for _, arg := range cmd.Args {
			value, ok := p.buildArgs[arg.Key]
			if !ok {
				if arg.Value == nil {
					continue
				}
				expanded, err := p.expander.Word(*arg.Value, p.global)
				if err != nil {
					return p.file.Wrap(cmd.Location(), err)
				}
				value = expanded.Text
			}
			p.global.Set(arg.Key, value)
			if err := checkEnv(p.global); err != nil {
				return p.file.Wrap(cmd.Location(), err)
			}
		}
	}
	return nil
}

func checkEnv(env *dockerfile.Env) error {
	if env.Size() > maxEnv {
		return fmt.Errorf("the variables take %d bytes, the limit is %d", env.Size(), maxEnv)
	}
	return nil
}

func (p *planner) setPlatformArgs() {
	build, target := p.req.BuildPlatform, p.req.Platform
	stage := p.req.Target
	if stage == "" {
		stage = p.file.Stages[len(p.file.Stages)-1].Name
	}
	if stage == "" {
		stage = "default"
	}
	for _, arg := range [][2]string{
		{"BUILDPLATFORM", platforms.Format(build)},
		{"BUILDOS", build.OS},
		{"BUILDOSVERSION", build.OSVersion},
		{"BUILDARCH", build.Architecture},
		{"BUILDVARIANT", build.Variant},
		{"TARGETPLATFORM", platforms.FormatAll(target)},
		{"TARGETOS", target.OS},
		{"TARGETOSVERSION", target.OSVersion},
		{"TARGETARCH", target.Architecture},
		{"TARGETVARIANT", target.Variant},
		{"TARGETSTAGE", stage},
	} {
		value := arg[1]
		if given, ok := p.buildArgs[arg[0]]; ok {
			value = given
		}
		p.global.Set(arg[0], value)
	}
}

// globalArgLine is the last global ARG that names a key.
func (p *planner) globalArgLine(key string) []parser.Range {
	for _, cmd := range slices.Backward(p.file.MetaArgs) {
		for _, arg := range cmd.Args {
			if arg.Key == key {
				return cmd.Location()
			}
		}
	}
	return nil
}

// proxyEnv is what every RUN sees of proxy build arguments, declared or not:
// both spellings of each. Of several spellings given the last in order of name wins.
func proxyEnv(buildArgs map[string]string) []string {
	given := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(buildArgs)) {
		given[strings.ToUpper(key)] = buildArgs[key]
	}
	var env []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"} {
		if value := given[name]; value != "" {
			env = append(env, name+"="+value, strings.ToLower(name)+"="+value)
		}
	}
	return env
}

func checkPlatform(platform ocispec.Platform) error {
	switch {
	case platform.OS == "" || platform.Architecture == "":
		return errors.New("the platform to build for is not known")
	case platform.OS != "linux":
		return fmt.Errorf("platform %s is not supported: only Linux images can be built", platforms.Format(platform))
	}
	return nil
}
