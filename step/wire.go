// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/zap"

	"github.com/kaniko-go/kaniko-go/builder"
	"github.com/kaniko-go/kaniko-go/builder/isolation"
	"github.com/kaniko-go/kaniko-go/builder/registry"
	"github.com/kaniko-go/kaniko-go/results"
	"github.com/kaniko-go/kaniko-go/step/config"
)

// outputs are the result files that the configuration asks for.
func outputs(cfg *config.Config) results.Outputs {
	dir := cfg.ResultsDir
	if dir != "" {
		// A StepAction knows the paths of single results, and so their directory only as PATH/.. where PATH does not exist yet.
		dir = filepath.Clean(dir)
	}
	out := results.Outputs{
		Dir:        dir,
		DigestFile: cfg.DigestFile,
		NameFile:   cfg.ImageNameWithDigestFile,
		TagFile:    cfg.ImageNameTagWithDigestFile,
	}
	if strings.HasPrefix(dir, "/tekton/") {
		out.Limit = results.TektonLimit
	}
	return out
}

func newBuilder(cfg *config.Config, status isolation.Status, log *zap.Logger) (*builder.Builder, error) {
	progress := results.Progress{Path: cfg.ArgoProgressFile}
	out := builder.NewLog(log, func(done, total int) {
		if err := progress.Set(done, total); err != nil {
			log.Debug(err.Error())
		}
	})
	client, err := registry.New(registryOptions(cfg, log, out))
	if err != nil {
		return nil, &configError{err} // a certificate that cannot be read
	}
	return &builder.Builder{Registry: client, Isolation: isolated(status, cfg), Log: out}, nil
}

// isolated is what can be had of isolation, with what is asked for.
func isolated(status isolation.Status, cfg *config.Config) isolation.Status {
	switch cfg.Isolation {
	case config.IsolationNamespace:
		status.Choice = isolation.ChooseNamespace
	case config.IsolationInPlace:
		status.Choice = isolation.ChooseInPlace
	case config.IsolationAuto:
	}
	status.Force = cfg.Force
	return status
}

func registryOptions(cfg *config.Config, log *zap.Logger, out *builder.Log) registry.Options {
	o := registry.Options{
		DockerConfig:            cfg.CredentialsFile(),
		AuthJSON:                []byte(cfg.DockerAuthConfig),
		Logins:                  logins(cfg),
		Google:                  registry.GoogleLogin{KeyFile: cfg.GoogleApplicationCredentials, Home: cfg.Home},
		Azure:                   azureLogin(cfg),
		Insecure:                cfg.Insecure,
		InsecurePull:            cfg.InsecurePull,
		InsecureRegistries:      cfg.InsecureRegistry,
		SkipTLSVerify:           cfg.SkipTLSVerify,
		SkipTLSVerifyPull:       cfg.SkipTLSVerifyPull,
		SkipTLSVerifyRegistries: cfg.SkipTLSVerifyRegistry,
		Certificates:            cfg.RegistryCertificate,
		ClientCerts:             map[string]registry.ClientCert{},
		Mirrors:                 cfg.RegistryMirror,
		Maps:                    cfg.RegistryMap,
		TokenRealms:             cfg.RegistryTokenRealm,
		SkipDefaultFallback:     cfg.SkipDefaultRegistryFallback,
		PushRetries:             cfg.PushRetry,
		PullRetries:             cfg.ImageDownloadRetry,
		KeepImmutable:           cfg.PushIgnoreImmutableTagErrors,
		UserAgent:               "kaniko-go/" + version,
		Log:                     log,
		Progress:                builder.TransferProgress(out),
	}
	for helper, cloud := range map[string]string{config.HelperECR: registry.ECR, config.HelperGoogle: registry.Google, config.HelperACR: registry.ACR} {
		if cfg.CredentialHelpers.Has(helper) {
			o.Clouds = append(o.Clouds, cloud)
		}
	}
	for host, pair := range cfg.RegistryClientCert {
		o.ClientCerts[host] = registry.ClientCert{CertFile: pair.Cert, KeyFile: pair.Key}
	}
	return o
}

// request is the build that the configuration asks for.
func request(cfg *config.Config) builder.Request {
	r := builder.Request{
		Context:     cfg.Context,
		ContextSub:  cfg.ContextSubPath,
		Source:      source(cfg),
		Dockerfile:  cfg.Dockerfile,
		Target:      cfg.Target,
		BuildArgs:   buildArgs(cfg),
		Labels:      cfg.Label.Map(),
		Platforms:   wanted(cfg),
		Contexts:    cfg.BuildContext.Map(),
		Secrets:     secrets(cfg),
		SSH:         agents(cfg),
		KnownHosts:  knownHosts(cfg),
		Credentials: cfg.CredentialFiles(),
		Epoch:       cfg.Epoch(),
		Output:      output(cfg),
		Run:         runOptions(cfg),
		Cache:       cacheOptions(cfg),
		IgnorePaths: cfg.IgnorePath,
		Dir:         cfg.Dir,
		FallbackDir: cfg.Dir == config.DefaultDir,
	}
	if cfg.Dryrun {
		r.DryRun = os.Stdout
	}
	return r
}

// source is how a build context that is not on disk is reached.
func source(cfg *config.Config) builder.SourceOptions {
	git, _ := cfg.GitOptions() // Validate has looked at them
	o := builder.SourceOptions{
		Git: builder.GitSource{
			Branch: git.Branch, NoSubmodules: git.NoSubmodules, InsecureTLS: git.InsecureSkipTLS, Scheme: cfg.GitPullMethod,
			User: cfg.GitUsername, Password: cfg.GitPassword, Token: cfg.GitToken,
		},
		S3:     builder.S3Source{Endpoint: cfg.S3Endpoint, PathStyle: cfg.S3ForcePathStyle},
		Labels: cfg.SourceLabels,
	}
	o.Google.Endpoint = cfg.StorageEmulator
	o.Google.Login = registry.GoogleLogin{KeyFile: cfg.GoogleApplicationCredentials, Home: cfg.Home}
	o.Azure.Endpoint, o.Azure.Key, o.Azure.SAS = cfg.AzureStorageURL, cfg.AzureStorageKey, cfg.AzureStorageSAS
	o.Azure.Login = azureLogin(cfg)
	return o
}

// buildArgs are those that were given, and the proxies where they were not.
func buildArgs(cfg *config.Config) map[string]string {
	args := cfg.ProxyArgs.Map()
	for k, v := range cfg.BuildArg.Map() {
		args[k] = v
	}
	return args
}

func secrets(cfg *config.Config) map[string]builder.Secret {
	out := map[string]builder.Secret{}
	for _, s := range cfg.Secret {
		if s.Env == "" || s.Value != nil {
			out[s.ID] = builder.Secret{File: s.File, Value: s.Value}
		}
	}
	return out
}

func agents(cfg *config.Config) map[string][]string {
	out := map[string][]string{}
	for _, a := range cfg.SSH {
		out[a.ID] = a.Paths
	}
	return out
}

// logins are the users and passwords that the environment has for single hosts.
func logins(cfg *config.Config) []registry.Login {
	var out []registry.Login
	if cfg.CredentialHelpers.Has(config.HelperEnv) {
		for _, l := range cfg.HostLogins {
			out = append(out, registry.Login{Variable: l.Variable, User: l.User, Password: l.Password})
		}
	}
	if cfg.CIRegistry != "" && cfg.CredentialHelpers.Has(config.HelperGitLab) {
		out = append(out, registry.Login{Host: cfg.CIRegistry, Variable: "CI_REGISTRY", User: cfg.CIRegistryUser, Password: cfg.CIRegistryPassword})
	}
	if cfg.DependencyProxyServer != "" && cfg.CredentialHelpers.Has(config.HelperGitLab) {
		out = append(out, registry.Login{
			Host: cfg.DependencyProxyServer, Variable: "CI_DEPENDENCY_PROXY_SERVER",
			User: cfg.DependencyProxyUser, Password: cfg.DependencyProxyPassword,
		})
	}
	return out
}

func azureLogin(cfg *config.Config) registry.AzureLogin {
	return registry.AzureLogin{
		TenantID: cfg.AzureTenantID, ClientID: cfg.AzureClientID, ClientSecret: cfg.AzureClientSecret,
		CertificateFile: cfg.AzureCertificatePath, CertificateKey: cfg.AzureCertificatePassword,
		FederatedToken: cfg.AzureFederatedToken, FederatedTokenFile: cfg.AzureFederatedTokenFile,
		AuthorityHost: cfg.AzureAuthorityHost,
		Endpoint:      cfg.AzureIdentityEndpoint != "" || cfg.AzureMSIEndpoint != "",
	}
}

// knownHosts are the places where ssh itself looks.
func knownHosts(cfg *config.Config) []string {
	files := []string{"/etc/ssh/ssh_known_hosts"}
	if cfg.Home != "" {
		files = append(files, filepath.Join(cfg.Home, ".ssh", "known_hosts"))
	}
	return files
}

// wanted are the platforms that were asked for; config.Validate has parsed them before.
func wanted(cfg *config.Config) []ocispec.Platform {
	var out []ocispec.Platform
	for _, s := range cfg.Platform {
		if p, err := platforms.Parse(s); err == nil {
			out = append(out, platforms.Normalize(p))
		}
	}
	return out
}

func output(cfg *config.Config) builder.Output {
	return builder.Output{
		Destinations:  cfg.Destination,
		NoPush:        cfg.NoPush,
		SkipPushCheck: cfg.SkipPushPermissionCheck,
		Layout:        cfg.OCILayoutPath,
		Tarball:       cfg.TarPath,
		Compression:   string(cfg.Compression),
		Level:         max(cfg.CompressionLevel, 0),
		Docker:        cfg.ImageFormat == config.Docker,
		Annotations:   cfg.Annotation.Map(),
	}
}

func cacheOptions(cfg *config.Config) builder.CacheOptions {
	o := builder.CacheOptions{
		TTL: cfg.CacheTTL, ReadOnly: cfg.NoPushCache, Off: cfg.NoCache, Dir: cfg.CacheDir,
		Unpacked: cfg.CacheUnpacked, DirSize: int64(cfg.CacheDirMaxSize), DirTTL: cfg.CacheDirTTL,
		MountsTravel: cfg.CacheMounts == config.CacheMountsRegistry, MountLimit: int64(cfg.CacheMountsMaxSize),
	}
	if slices.Contains(cfg.NoCache, "true") {
		o.All = true
	}
	o.Repos = cfg.CacheRepos()
	return o
}

func runOptions(cfg *config.Config) builder.RunOptions {
	o := builder.RunOptions{
		Hostname: cfg.Hostname,
		ShmSize:  int64(cfg.ShmSize),
		Timeout:  cfg.RunTimeout,
	}
	if cfg.Network == config.NetworkNone {
		o.Network = isolation.NetworkNone
	}
	for _, h := range cfg.AddHost {
		o.Hosts = append(o.Hosts, isolation.Host{Name: h.Name, IP: h.IP})
	}
	for _, u := range cfg.Ulimit {
		o.Ulimits = append(o.Ulimits, isolation.Ulimit{Name: u.Name, Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return o
}
