-- The database and the user of the services box.
CREATE DATABASE IF NOT EXISTS `pseidon`;
CREATE USER IF NOT EXISTS 'dwadmin'@'%' IDENTIFIED BY 'dwadmin';
GRANT ALL PRIVILEGES ON `pseidon`.* TO 'dwadmin'@'%';
USE `pseidon`;
