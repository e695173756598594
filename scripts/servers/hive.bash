# Hive's metastore on an embedded database, and a HiveServer2 that uses it and admits every user.
# shellcheck disable=SC2154 # cache comes from lib/servers.bash, ADDRESS from `call`

packages() {
    need default-jre-headless java_17
    need maven command -v mvn
    need util-linux command -v flock
}

prepare() {
    fetch_by_maven hive copy-dependencies
    mkdir "$HOME_DIR/conf"
    configuration "metastore.thrift.bind.host=$ADDRESS" \
        "metastore.thrift.port=$(port metastore 9083)" \
        "metastore.warehouse.dir=$HOME_DIR/warehouse" \
        "javax.jdo.option.ConnectionURL=jdbc:derby:;databaseName=$HOME_DIR/data;create=true" \
        javax.jdo.option.ConnectionDriverName=org.apache.derby.jdbc.EmbeddedDriver \
        datanucleus.schema.autoCreateAll=true metastore.schema.verification=false \
        >"$HOME_DIR/conf/metastore-site.xml"
    # Everything that needs Tez, ZooKeeper or a web page is off. A HiveServer2 that starts before
    # the metastore tries again after one second, not after a minute.
    configuration "hive.metastore.uris=thrift://$ADDRESS:$(port metastore 9083)" \
        "hive.metastore.warehouse.dir=$HOME_DIR/warehouse" \
        "hive.server2.thrift.bind.host=$ADDRESS" \
        "hive.server2.thrift.port=$(port hiveserver2 10000)" \
        "hive.exec.scratchdir=$HOME_DIR/scratch" "hive.exec.local.scratchdir=$HOME_DIR/local" \
        hive.server2.authentication=NONE hive.server2.enable.doAs=false hive.server2.webui.port=0 \
        hive.execution.engine=mr hive.server2.tez.initialize.default.sessions=false \
        hive.server2.support.dynamic.service.discovery=false \
        hive.notification.event.poll.interval=0s \
        hive.server2.materializedviews.registry.impl=DUMMY \
        hive.scheduled.queries.executor.enabled=false \
        hive.server2.sleep.interval.between.start.attempts=1s >"$HOME_DIR/conf/hive-site.xml"
}

# Prints settings in Hadoop's format: configuration NAME=VALUE…
configuration() {
    local setting
    echo '<configuration>'
    for setting; do
        echo "  <property><name>${setting%%=*}</name><value>${setting#*=}</value></property>"
    done
    echo '</configuration>'
}

start() {
    java_process hive-1 org.apache.hadoop.hive.metastore.HiveMetaStore -p "$(port metastore 9083)"
    java_process hive-2 org.apache.hive.service.server.HiveServer2
}

java_process() {
    local process=$1 package packages=()
    shift
    for package in java.io java.lang java.lang.reflect java.net java.nio java.time java.util \
        java.util.concurrent java.util.concurrent.atomic java.util.regex sun.nio.ch; do
        packages+=("--add-opens=java.base/$package=ALL-UNNAMED")
    done
    spawn "$process" java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "${packages[@]}" \
        -cp "$HOME_DIR/conf:$cache/hive/*" "$@"
}

# Both servers listen only when they can answer.
ready() {
    : <"/dev/tcp/$ADDRESS/$(port metastore 9083)"
    : <"/dev/tcp/$ADDRESS/$(port hiveserver2 10000)"
}

print_env() {
    export_env PSEIDON_TEST_HIVE_METASTORE "thrift://$ADDRESS:$(port metastore 9083)"
    export_env PSEIDON_TEST_HIVESERVER2 "jdbc:hive2://$ADDRESS:$(port hiveserver2 10000)/default"
}
