#!/bin/sh
# `read-only` serves what is stored, over TLS; `writable` takes what is pushed, for the loopback it is published on;
# `certificates ADDRESS` makes what TLS needs, in /certificates.
set -eu

configuration=/tmp/registry.yml
certificates=/certificates

common() {
    cat <<END
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: /var/lib/registry}
  cache: {blobdescriptor: inmemory}
  delete: {enabled: true}
END
}

case "${1:?read-only, writable or certificates}" in
    read-only)
        {
            common
            printf '  maintenance: {readonly: {enabled: true}}\n'
            printf 'http: {addr: ":5000", headers: {X-Content-Type-Options: [nosniff]}, '
            printf 'tls: {certificate: /run/tls/server.crt, key: /run/tls/server.key, minimumtls: tls1.2}}\n'
        } >"$configuration"
        exec docker-registry serve "$configuration"
        ;;
    writable)
        {
            common
            printf 'http: {addr: ":5000"}\n'
        } >"$configuration"
        exec docker-registry serve "$configuration"
        ;;
    certificates)
        address=${2:?the address at which machines reach the registry}
        umask 077
        cd "$certificates"
        if [ ! -s ca.key ] || [ ! -s ca.crt ]; then
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt \
                -days 3650 -subj "/CN=inferenceserver registry authority $(openssl rand -hex 4)" \
                -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign'
        fi
        case "$address" in *[!0-9.]*) kind=DNS ;; *) kind=IP ;; esac
        mkdir -p tls
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls/server.key.draft \
            -subj "/CN=$address" -out /tmp/request.pem
        printf 'subjectAltName=%s:%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$kind" "$address" \
            >/tmp/extensions
        openssl x509 -req -in /tmp/request.pem -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" \
            -days 825 -extfile /tmp/extensions -out tls/server.crt.draft
        mv tls/server.key.draft tls/server.key
        mv tls/server.crt.draft tls/server.crt
        # The registry is another user than whoever keeps the authority.
        chown -R 10001:10001 tls
        chown "$(stat -c %u:%g .)" ca.key ca.crt
        chmod 0644 ca.crt
        ;;
    *)
        printf 'error: read-only, writable or certificates, not %s\n' "$1" >&2
        exit 2
        ;;
esac
