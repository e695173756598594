# One schema registry, Apicurio, which speaks Confluent's protocol at the printed address. It keeps
# its schemas in a file.
# shellcheck disable=SC2154 # cache comes from lib/servers.bash, ADDRESS from `call`

packages() {
    need default-jre-headless java_17
    need maven command -v mvn
    need curl command -v curl
    need util-linux command -v flock
}

prepare() {
    fetch_by_maven registry unpack
    port registry 8080 >/dev/null
}

start() {
    spawn registry java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
        -Dquarkus.http.host="$ADDRESS" -Dquarkus.http.port="$(port registry 8080)" \
        -Dapicurio.datasource.url="jdbc:h2:file:$HOME_DIR/schemas" \
        -jar "$cache"/registry/apicurio-registry-app-*-runner.jar
}

url() {
    echo "http://$ADDRESS:$(port registry 8080)/apis/ccompat/v7"
}

ready() {
    curl --silent --fail "$(url)/subjects"
}

print_env() {
    export_env PSEIDON_TEST_REGISTRY "$(url)"
}
