// SPDX-License-Identifier: Apache-2.0

// Package config turns the environment into one checked struct. It is the only
// reader of environment variables in the project: everything else is handed
// values. The struct is also the source of what users see: the reference in
// docs/, the parameters of the Tekton Task and of the Argo WorkflowTemplate are
// generated from its tags. It opens no file but to look for the registry
// credentials' place, and it decides nothing about a build.
package config

//go:generate go run ./internal/docgen -o ../../docs/configuration.md

import "time"

// Prefix begins the name of every variable of ours. The rest is the name of
// kaniko's flag in upper case: --some-flag is KANIKO_SOME_FLAG.
const Prefix = "KANIKO"

// Config is the whole configuration of one run, in the order in which the
// reference shows it. Load fills and checks it; it is not changed afterwards.
type Config struct {
	Source
	Output
	Form
	Run
	LayerCache
	Registry
	Identities
	Log
	Environment
}

// DefaultDir is the value of KANIKO_DIR when none was set: then, and only then,
// another directory may take its place.
const DefaultDir = "/kaniko/work"

// Each field is one variable. Its tags:
//
//	split_words  the name follows from the field's name
//	envconfig    the name, where it is not prefixed with KANIKO_
//	default      the value of an unset variable
//	desc         what it means, one or two sentences for the reference
//	flag         kaniko's flag if it is not the variable's name; "-": kaniko has none
//	param        the parameter of the Task and the WorkflowTemplate that sets it; none without
//	secret       the value is never printed

// Source says what is built.
type Source struct {
	Mode           Mode   `split_words:"true" default:"build" flag:"-" desc:"What to do. build; check only runs the build checks on the Dockerfile and needs no destination; warm fetches KANIKO_IMAGE, or what the Dockerfile needs, into KANIKO_CACHE_DIR; push verifies and pushes what a build has left at KANIKO_OCI_LAYOUT_PATH or KANIKO_TAR_PATH; index puts the images of several platforms, KANIKO_IMAGE, under one digest; cache-list tells what KANIKO_CACHE_REPO and KANIKO_CACHE_DIR hold, as JSON on standard output; cache-prune removes from them what KANIKO_CACHE_TTL, KANIKO_CACHE_DIR_TTL and KANIKO_CACHE_DIR_MAX_SIZE say."`
	Context        string `split_words:"true" default:"." param:"CONTEXT" desc:"The build context: a directory, also written dir://PATH; tar://FILE or tar://stdin; a git repository, git://HOST/PATH, https://HOST/PATH.git, ssh://USER@HOST/PATH or USER@HOST:PATH, each with #REF:DIRECTORY; s3://BUCKET/OBJECT, gs://BUCKET/OBJECT, or an http or https URL, also of Azure, of an archive or a single Dockerfile. docs/contexts.md has all of it."`
	ContextSubPath string `split_words:"true" param:"CONTEXT_SUB_PATH" desc:"Directory inside the build context that is used as the context."`
	Dockerfile     string `split_words:"true" default:"Dockerfile" param:"DOCKERFILE" desc:"The Dockerfile: absolute, relative to the working directory, or relative to the context; the first that exists; or an http or https URL. NAME.dockerignore beside it wins over the context's .dockerignore."`
	Bucket         string `split_words:"true" desc:"The build context where KANIKO_CONTEXT is not set: BUCKET/OBJECT in Google's store, or with s3:// or gs://."`
	Git            List   `split_words:"true" desc:"How a build context from git is fetched: branch=NAME, which wins over the URL unless that names a commit, recurse-submodules=false to leave submodules out, insecure-skip-tls=true not to check the server's certificate. single-branch and depth have no meaning, for no more than one commit is fetched."`
	SourceLabels   bool   `split_words:"true" default:"false" flag:"-" desc:"Label the image with the repository and the commit that a build context from git was made of, as org.opencontainers.image.source and .revision."`
	Target         string `split_words:"true" param:"TARGET" desc:"Name or number of the stage to build; the last one if unset."`
	BuildArg       Pairs  `split_words:"true" param:"BUILD_ARGS" desc:"Build arguments, KEY=VALUE. A KEY alone takes the value of the variable of that name from the environment, and is left out when there is none."`
	Label          Pairs  `split_words:"true" param:"LABELS" desc:"Labels for the image, KEY=VALUE; they win over LABEL instructions."`
	Annotation     Pairs  `split_words:"true" param:"ANNOTATIONS" desc:"Annotations for the manifest of the image, KEY=VALUE; of every platform's. Those of the base image are not handed on."`
	BuildContext   Pairs  `split_words:"true" param:"BUILD_CONTEXTS" flag:"-" desc:"More build contexts, NAME=VALUE, for FROM, COPY --from and RUN --mount; they take the place of the stage or image of that name. VALUE is a directory, docker-image://REF, oci-layout://DIR@DIGEST, oci-layout://DIR:TAG, or a git or http URL. NAME::os/arch is for that platform alone. One that the build does not need is never touched."`
	Platform       List   `split_words:"true" param:"PLATFORM" flag:"-" desc:"The platform of the image, os/arch or os/arch/variant; that of the machine if unset. Several give an index."`
	CustomPlatform string `split_words:"true" desc:"The older name of KANIKO_PLATFORM, for one."`
	IgnorePath     List   `split_words:"true" param:"IGNORE_PATHS" desc:"Absolute paths that never become part of a layer when a RUN changes them."`
	Dryrun         bool   `split_words:"true" default:"false" param:"DRYRUN" desc:"Print the plan of the build and stop: nothing is run, pushed or written."`
}

// Output says where the image goes.
type Output struct {
	Destination                List   `split_words:"true" param:"IMAGE" desc:"The references to push to, with tag; all get the same digest. Required unless KANIKO_NO_PUSH or KANIKO_DRYRUN is true or KANIKO_MODE is check."`
	NoPush                     bool   `split_words:"true" default:"false" param:"SKIP_PUSH" desc:"Build, but push nothing."`
	TarPath                    string `split_words:"true" desc:"Also write the image to this file, in the form that docker load reads. It holds one platform."`
	OCILayoutPath              string `split_words:"true" desc:"Also write the image to this directory, as an OCI image layout."`
	ResultsDir                 string `split_words:"true" flag:"-" desc:"Directory that receives the files IMAGE_DIGEST, IMAGE_URL, IMAGE_REF and IMAGES after everything else has succeeded, and SOURCE_COMMIT where the build context came from git. None are left by a build that failed; without a push IMAGE_DIGEST is written and the others are empty. Mode check writes LINT.json instead, in BuildKit's format."`
	DigestFile                 string `split_words:"true" desc:"File that receives the digest of the image."`
	ImageNameWithDigestFile    string `split_words:"true" desc:"File that receives REPOSITORY@DIGEST, one line for each destination."`
	ImageNameTagWithDigestFile string `split_words:"true" desc:"File that receives REPOSITORY:TAG@DIGEST, one line for each destination."`
}

// Form says what form the image has.
type Form struct {
	Compression      Compression `split_words:"true" default:"gzip" param:"COMPRESSION" desc:"How layers are compressed: gzip or zstd."`
	CompressionLevel int         `split_words:"true" default:"-1" param:"COMPRESSION_LEVEL" desc:"Level of the compression: 1 to 9 for gzip, 1 to 22 for zstd; -1 for a good default."`
	ImageFormat      Format      `split_words:"true" default:"oci" param:"FORMAT" desc:"Media types of manifest, configuration and layers: oci or docker."`
	Reproducible     bool        `split_words:"true" default:"false" param:"REPRODUCIBLE" desc:"As SOURCE_DATE_EPOCH=0, unless that is set: the same inputs give the same digest."`
}

// Run says what RUN instructions see and where they run.
type Run struct {
	Isolation  Isolation     `split_words:"true" default:"auto" param:"ISOLATION" flag:"-" desc:"How RUN is kept apart from the builder: auto takes the best that the container permits. namespace, with a root of its own, and inplace, in the container's own root file system, are requirements, not hints; docs/security.md says what each protects."`
	Force      bool          `split_words:"true" default:"false" desc:"With inplace: move files that are not the builder's own out of the container's root file system for the time of the build, instead of refusing."`
	Dir        string        `split_words:"true" default:"/kaniko/work" flag:"kaniko-dir" desc:"Directory for everything that a build stores. Where the default cannot be made, a new directory under the temporary directory. RUN is fastest if it is a volume, such as an emptyDir."`
	AddHost    Hosts         `split_words:"true" param:"ADD_HOSTS" flag:"-" desc:"Lines for /etc/hosts in RUN, NAME=ADDRESS or NAME:ADDRESS."`
	Network    Network       `split_words:"true" default:"default" param:"NETWORK" flag:"-" desc:"The network of RUN: default and host are the container's, none has only loopback. RUN --network wins."`
	Hostname   string        `split_words:"true" flag:"-" desc:"The host name that RUN sees; buildkitsandbox if unset."`
	ShmSize    Size          `split_words:"true" default:"64m" param:"SHM_SIZE" flag:"-" desc:"Size of /dev/shm in RUN, in bytes or with k, m or g."`
	Ulimit     Ulimits       `split_words:"true" flag:"-" desc:"Resource limits of RUN, NAME=SOFT or NAME=SOFT:HARD; -1 is unlimited."`
	RunTimeout time.Duration `split_words:"true" default:"0s" param:"RUN_TIMEOUT" flag:"-" desc:"Longest time that one RUN may take, such as 30m; 0s is no limit."`
	Secret     Secrets       `split_words:"true" desc:"Secrets for RUN --mount=type=secret and for ADD, id=ID,src=FILE or id=ID,env=VARIABLE. id=ID alone is the variable of that name, or else the file. Nothing of them is in the image or in the log."`
	SSH        Agents        `split_words:"true" flag:"-" desc:"SSH agents for RUN --mount=type=ssh and for git sources, ID=SOCKET or ID=KEY,KEY with files of private keys. An ID alone, such as default, is the agent of SSH_AUTH_SOCK."`
}

// LayerCache says what of earlier builds is used again.
type LayerCache struct {
	Cache              bool          `split_words:"true" default:"false" param:"CACHE" desc:"Keep the layers that instructions make in KANIKO_CACHE_REPO, and take them from there when everything that decides about them is as it was."`
	CacheRepo          List          `split_words:"true" param:"CACHE_REPO" desc:"Where layers are kept: a repository of a registry, or oci:DIRECTORY; both as two lines. The repository of the first destination with /cache added if unset."`
	CacheTTL           time.Duration `split_words:"true" default:"336h" param:"CACHE_TTL" desc:"Age from which a kept layer is not used any more; 0s is no limit."`
	NoPushCache        bool          `split_words:"true" default:"false" desc:"Use the cache, but add nothing to it."`
	CacheDir           string        `split_words:"true" param:"CACHE_DIR" desc:"Directory that keeps base images and cache mounts beyond the build, shared by simultaneous builds, such as a volume. Builds fill it as they go where it is writable; mode warm fills it before."`
	CacheDirMaxSize    Size          `split_words:"true" default:"0" flag:"-" desc:"The most that KANIKO_CACHE_DIR may hold, and each oci: directory of KANIKO_CACHE_REPO, in bytes or with k, m or g; what was not used for longest goes first, after every build and in mode cache-prune. 0 is no limit."`
	CacheDirTTL        time.Duration `split_words:"true" default:"0s" flag:"-" desc:"Age from which something in KANIKO_CACHE_DIR goes that no build has used meanwhile; 0s is no limit."`
	CacheUnpacked      bool          `split_words:"true" default:"false" flag:"-" desc:"Also keep base images unpacked in KANIKO_CACHE_DIR, so that a RUN begins at once. Only with isolation by namespaces and overlay; whoever can write to the directory decides what is in the images."`
	CacheMounts        CacheMounts   `split_words:"true" default:"dir" flag:"-" desc:"Where the contents of RUN --mount=type=cache are kept: dir, in KANIKO_CACHE_DIR if that is set and writable; registry, also in the repository of KANIKO_CACHE_REPO, for pods without a volume."`
	CacheMountsMaxSize Size          `split_words:"true" default:"2g" flag:"-" desc:"The most that one cache mount may hold to be stored in the registry, or loaded from there."`
	Image              List          `split_words:"true" flag:"image" desc:"The images of mode warm, what the Dockerfile needs if unset; or those of mode index, by digest."`
	NoCache            List          `split_words:"true" param:"NO_CACHE" flag:"-" desc:"true, or the names of stages, one a line, that are made anew whatever the cache has."`
}

// Registry says how registries are talked to.
type Registry struct {
	Insecure                     bool      `split_words:"true" default:"false" desc:"Push over plain HTTP if the registry has no HTTPS. Better: KANIKO_INSECURE_REGISTRY."`
	InsecurePull                 bool      `split_words:"true" default:"false" desc:"Pull over plain HTTP if the registry has no HTTPS. Better: KANIKO_INSECURE_REGISTRY."`
	InsecureRegistry             List      `split_words:"true" param:"INSECURE_REGISTRIES" desc:"Registries, HOST or HOST:PORT, that may be talked to over plain HTTP."`
	SkipTLSVerify                bool      `split_words:"true" default:"false" desc:"Accept any certificate of any registry. Better: KANIKO_REGISTRY_CERTIFICATE."`
	SkipTLSVerifyPull            bool      `split_words:"true" default:"false" desc:"Accept any certificate when pulling. Better: KANIKO_REGISTRY_CERTIFICATE."`
	SkipTLSVerifyRegistry        List      `split_words:"true" param:"SKIP_TLS_VERIFY_REGISTRIES" desc:"Registries, HOST or HOST:PORT, whose certificate is not checked."`
	RegistryCertificate          HostFiles `split_words:"true" param:"REGISTRY_CERTIFICATES" desc:"HOST=FILE: certificate authority of a registry, PEM."`
	RegistryClientCert           HostPairs `split_words:"true" param:"REGISTRY_CLIENT_CERTS" desc:"HOST=CERTIFICATE,KEY: client certificate for a registry, PEM files."`
	RegistryMirror               List      `split_words:"true" param:"REGISTRY_MIRRORS" desc:"Mirrors of Docker Hub, HOST or HOST/PATH, asked in this order before Docker Hub itself."`
	RegistryMap                  HostLists `split_words:"true" param:"REGISTRY_MAPS" desc:"REGISTRY=MIRROR: mirrors of any registry, asked in this order; several may be joined by semicolons."`
	RegistryTokenRealm           List      `split_words:"true" desc:"Token servers, HOST or HOST:PORT, outside the domain of their registry that may be sent its credentials."`
	SkipDefaultRegistryFallback  bool      `split_words:"true" default:"false" desc:"Fail when no mirror has the image instead of asking the registry itself."`
	PushRetry                    int       `split_words:"true" default:"0" desc:"The most retries of one request of a push, with growing pauses; 0 is as many as fit into five minutes."`
	PushIgnoreImmutableTagErrors bool      `split_words:"true" default:"false" desc:"A tag that exists already and that the registry does not let anybody move is a warning. The results then have the digest that was built, which is in the repository, and the tag keeps its own."`
	ImageDownloadRetry           int       `split_words:"true" default:"0" desc:"The most retries of one request of a pull, with growing pauses; 0 is as many as fit into five minutes."`
	CredentialHelpers            Helpers   `split_words:"true" desc:"Where credentials are looked for after the docker configuration: env (KANIKO_<HOST>_USER and _PASSWORD), ecr, google, acr, gitlab; all of them if unset; none for nowhere. A cloud is asked only about its own registries. docs/credentials.md has all of it."`
	SkipPushPermissionCheck      bool      `split_words:"true" default:"false" param:"SKIP_PUSH_PERMISSION_CHECK" desc:"Do not ask the registry before the build whether the push will be permitted."`
}

// Log says what people read.
type Log struct {
	LogFormat    LogFormat `split_words:"true" default:"text" param:"LOG_FORMAT" desc:"Form of the log on standard error: text or json."`
	LogTimestamp bool      `split_words:"true" default:"false" param:"LOG_TIMESTAMP" desc:"Begin lines of the text log with the time."`
	Verbosity    Verbosity `split_words:"true" default:"info" param:"LOG_LEVEL" desc:"Least severity that is logged: error, warn, info, debug or trace."`
}

// Environment holds the variables that are known beyond this project and so
// carry no prefix.
type Environment struct {
	SourceDateEpoch  Epoch  `envconfig:"SOURCE_DATE_EPOCH" param:"SOURCE_DATE_EPOCH" desc:"Seconds since 1970: the times in configuration and history, and the newest that a file in a layer of ours may have."`
	DockerConfig     string `envconfig:"DOCKER_CONFIG" desc:"Directory with the registry credentials, config.json or .dockerconfigjson, or the file itself."`
	DockerAuthConfig string `envconfig:"DOCKER_AUTH_CONFIG" secret:"true" desc:"Registry credentials themselves, in the form of config.json; they win over files."`
	RegistryAuthFile string `envconfig:"REGISTRY_AUTH_FILE" desc:"File with registry credentials, read where DOCKER_CONFIG leads to none. After it come $HOME/.docker/config.json and $XDG_RUNTIME_DIR/containers/auth.json."`
	Home             string `envconfig:"HOME" desc:"See REGISTRY_AUTH_FILE."`
	XDGRuntimeDir    string `envconfig:"XDG_RUNTIME_DIR" desc:"See REGISTRY_AUTH_FILE."`
	SSHAuthSock      string `envconfig:"SSH_AUTH_SOCK" desc:"Socket of an SSH agent, for KANIKO_SSH; RUN has it only by a mount."`
	GitUsername      string `envconfig:"GIT_USERNAME" desc:"For KANIKO_CONTEXT from git by http or https: the user. It goes to no other host than that of the URL, submodules and redirects included."`
	GitPassword      string `envconfig:"GIT_PASSWORD" secret:"true" desc:"For KANIKO_CONTEXT from git: the password."`
	GitToken         string `envconfig:"GIT_TOKEN" secret:"true" desc:"For KANIKO_CONTEXT from git: an access token. It wins over GIT_PASSWORD."`
	GitPullMethod    string `envconfig:"GIT_PULL_METHOD" default:"https" desc:"What git:// in KANIKO_CONTEXT stands for, https or http."`
	S3Endpoint       string `envconfig:"S3_ENDPOINT" desc:"For KANIKO_CONTEXT=s3://: URL of a store that speaks like S3. Everything else the AWS SDK reads: AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ENDPOINT_URL_S3, ..."`
	S3ForcePathStyle bool   `envconfig:"S3_FORCE_PATH_STYLE" default:"false" desc:"For KANIKO_CONTEXT=s3://: the bucket goes into the path of the URL, not into the host."`
	StorageEmulator  string `envconfig:"STORAGE_EMULATOR_HOST" desc:"For KANIKO_CONTEXT=gs://: address of a store that speaks like Google's. It gets no credentials."`
	AzureStorageKey  string `envconfig:"AZURE_STORAGE_ACCESS_KEY" secret:"true" desc:"For KANIKO_CONTEXT in Azure's store: the key of the account. Without it and the next, and a signature in the URL, the login for azurecr.io serves."`
	AzureStorageSAS  string `envconfig:"AZURE_STORAGE_SAS_TOKEN" secret:"true" desc:"For KANIKO_CONTEXT in Azure's store: a shared access signature."`
	AzureStorageURL  string `envconfig:"AZURE_STORAGE_SERVICE_ENDPOINT" desc:"URL of a store that speaks like Azure's, with the account where it is part of the path."`
	HTTPProxy        string `envconfig:"HTTP_PROXY" secret:"true" param:"HTTP_PROXY" desc:"Proxy for http. Like the four below, also in lower case: used by the builder, and given to RUN as the build argument of that name, which leaves no trace in the image."`
	HTTPSProxy       string `envconfig:"HTTPS_PROXY" secret:"true" param:"HTTPS_PROXY" desc:"Proxy for https."`
	FTPProxy         string `envconfig:"FTP_PROXY" secret:"true" desc:"Proxy for ftp, for RUN only."`
	NoProxy          string `envconfig:"NO_PROXY" param:"NO_PROXY" desc:"Hosts that are reached without a proxy."`
	AllProxy         string `envconfig:"ALL_PROXY" secret:"true" desc:"Proxy for everything else, for RUN only."`
	ArgoProgressFile string `envconfig:"ARGO_PROGRESS_FILE" desc:"Set by Argo: receives how much of the build is done."`

	// ProxyArgs are the proxy variables as they are to be given to RUN, under
	// the names, upper or lower case, under which they were set.
	ProxyArgs Pairs `ignored:"true"`
}

// group is a heading of the reference and the part of the struct below it.
type group struct {
	title, prefix string
	spec          any
}

func (c *Config) groups() []group {
	return []group{
		{"What is built", Prefix, &c.Source},
		{"Where the image goes", Prefix, &c.Output},
		{"Form of the image", Prefix, &c.Form},
		{"What RUN sees", Prefix, &c.Run},
		{"The cache", Prefix, &c.LayerCache},
		{"Registries", Prefix, &c.Registry},
		{"Credentials", "", &c.Identities},
		{"Log", Prefix, &c.Log},
		{"Variables without prefix", "", &c.Environment},
	}
}

// Epoch is the time that the build pretends it is: SOURCE_DATE_EPOCH, or 1970
// for KANIKO_REPRODUCIBLE; nil means the real time.
func (c *Config) Epoch() *time.Time {
	var t time.Time
	switch {
	case c.SourceDateEpoch.Set:
		t = time.Unix(c.SourceDateEpoch.Seconds, 0).UTC()
	case c.Reproducible:
		t = time.Unix(0, 0).UTC()
	default:
		return nil
	}
	return &t
}
