# One Apache Kafka broker, its own controller (KRaft), with its limits set low so that fault tests need not wait.
# shellcheck disable=SC2154 # cache and scripts come from lib/servers.bash

# Maven fetches the broker's jars once; they are fetched again when the pom has changed.
jars=$cache/kafka

prepare() {
    fetch_jars
    # The broker's key and the certificate that clients trust; `pseidon` with the password `secret` may log in at the listener SECURE.
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
        -keyout "$HOME_DIR/key.pem" -out "$HOME_DIR/ca.pem" >"$HOME_DIR/openssl.log" 2>&1
    cat "$HOME_DIR/key.pem" "$HOME_DIR/ca.pem" >"$HOME_DIR/keystore.pem"
    cat >"$HOME_DIR/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
listeners=CLIENT://127.0.0.1:$(port kafka),SECURE://127.0.0.1:$(port kafka-secure),CONTROLLER://127.0.0.1:$(port controller)
listener.security.protocol.map=CLIENT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location=$HOME_DIR/keystore.pem
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_pseidon="secret";
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$(port controller)
log.dirs=$HOME_DIR/data

auto.create.topics.enable=true
num.partitions=${PSEIDON_KAFKA_PARTITIONS:-4}
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4

# A member that was killed or frozen is given up after a second, the transaction of a killed producer soon after its own timeout,
# and a killed broker may come back as soon as its own session has ended.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=200
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
PROPERTIES
    kafka kafka.tools.StorageTool format --cluster-id pseidon-tests --add-scram 'SCRAM-SHA-512=[name=pseidon,password=secret]' \
        --config "$HOME_DIR/server.properties" >"$HOME_DIR/format.log" 2>&1
}

fetch_jars() {
    local pom=$scripts/servers/kafka/pom.xml
    mkdir -p "$cache"
    exec 8>"$cache/kafka.lock"
    flock 8 # several local-up at once: one fetches
    if ! cmp -s "$pom" "$jars/pom.xml"; then
        echo "fetching Apache Kafka" >&2
        rm -rf "$jars" "$jars.new"
        mvn --batch-mode --quiet --file "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
            -DoutputDirectory="$jars.new" >"$HOME_DIR/maven.log" 2>&1 </dev/null || { cat "$HOME_DIR/maven.log" >&2; return 1; }
        cp "$pom" "$jars.new/"
        mv -T "$jars.new" "$jars"
    fi
    exec 8>&-
}

start() {
    spawn kafka java -Xmx512m -XX:+UseSerialGC -Dorg.apache.logging.log4j.level=INFO -cp "$jars/*" kafka.Kafka "$HOME_DIR/server.properties"
}

kafka() {
    java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*" "$@"
}

ready() {
    kcat -b "127.0.0.1:$(port kafka)" -L -m 2
}

print_env() {
    export_env PSEIDON_TEST_KAFKA "127.0.0.1:$(port kafka)"
    export_env PSEIDON_TEST_KAFKA_SECURE "127.0.0.1:$(port kafka-secure)"
    export_env PSEIDON_TEST_KAFKA_CA "$HOME_DIR/ca.pem"
}
