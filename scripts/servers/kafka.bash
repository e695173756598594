# One Apache Kafka broker that is its own controller (KRaft), with short timeouts so that fault
# tests need not wait.
#
# Several brokers form a cluster if each except the first is prepared with PSEIDON_KAFKA_NODE=2, 3,
# … and PSEIDON_KAFKA_CONTROLLER=ADDRESS:9093, the controller of the first, as on the Vagrant boxes.
# shellcheck disable=SC2154 # cache comes from lib/servers.bash, ADDRESS from `call`

# Maven downloads the broker's jars once.
jars=$cache/kafka
node=${PSEIDON_KAFKA_NODE:-1}

packages() {
    need default-jre-headless java_17
    need maven command -v mvn
    need kcat command -v kcat
    need openssl command -v openssl
    need util-linux command -v flock
}

prepare() {
    local roles=broker,controller controller_listener=
    local controller=${PSEIDON_KAFKA_CONTROLLER:-$ADDRESS:$(port controller 9093)}
    if ((node == 1)); then
        controller_listener=,CONTROLLER://$controller
    else
        roles=broker
    fi

    fetch_by_maven kafka copy-dependencies
    # The broker's key and the certificate that clients trust; `pseidon` with the password `secret`
    # may log in at the listener SECURE.
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 \
        -subj "/CN=$ADDRESS" -addext "subjectAltName=IP:$ADDRESS" \
        -keyout "$HOME_DIR/key.pem" -out "$HOME_DIR/ca.pem" >"$HOME_DIR/openssl.log" 2>&1
    cat "$HOME_DIR/key.pem" "$HOME_DIR/ca.pem" >"$HOME_DIR/keystore.pem"
    cat >"$HOME_DIR/server.properties" <<PROPERTIES
process.roles=$roles
node.id=$node
listeners=CLIENT://$ADDRESS:$(port kafka 9092),SECURE://$ADDRESS:$(port kafka-secure 9094)$controller_listener
listener.security.protocol.map=CLIENT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location=$HOME_DIR/keystore.pem
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_pseidon="secret";
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@$controller
log.dirs=$HOME_DIR/data

auto.create.topics.enable=true
num.partitions=${PSEIDON_KAFKA_PARTITIONS:-4}
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
# Tests write records with old timestamps. The broker would delete them, even during a test.
log.retention.ms=-1

# A member that was killed or frozen is removed after a second, the transaction of a killed producer
# is aborted soon after its own timeout, and a killed broker may come back as soon as its own
# session has expired.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=200
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
PROPERTIES
    local user=() # the controller stores it
    ((node > 1)) || user=(--add-scram 'SCRAM-SHA-512=[name=pseidon,password=secret]')
    kafka kafka.tools.StorageTool format --cluster-id pseidon-tests "${user[@]}" \
        --config "$HOME_DIR/server.properties" >"$HOME_DIR/format.log" 2>&1
}

start() {
    spawn kafka java -Xmx512m -XX:+UseSerialGC -Dorg.apache.logging.log4j.level=INFO \
        -cp "$jars/*" kafka.Kafka "$HOME_DIR/server.properties"
}

kafka() {
    java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*" "$@"
}

ready() {
    kcat -b "$ADDRESS:$(port kafka 9092)" -L -m 2
}

print_env() {
    export_env PSEIDON_TEST_KAFKA "$ADDRESS:$(port kafka 9092)"
    export_env PSEIDON_TEST_KAFKA_SECURE "$ADDRESS:$(port kafka-secure 9094)"
    export_env PSEIDON_TEST_KAFKA_CA "$HOME_DIR/ca.pem"
}
